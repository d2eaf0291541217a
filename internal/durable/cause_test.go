package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
)

// Where the system says that something is not there, although what is above it
// is, the error is the system's, and tells of no other call.
func TestTargetCauseIsTheSystems(t *testing.T) {
	for _, l := range layouts {
		for _, kind := range []string{"mkdir", "create"} {
			t.Run(l.name+"/"+kind, func(t *testing.T) {
				root := l.prepare(t)
				before := list(t, root)
				attempts := 0
				err := publish(wrap(hookFunc(func(op durabletest.Op) error {
					if op.Kind == kind && filepath.Base(op.Path) != "data" {
						attempts++
						return &fs.PathError{Op: kind, Path: op.Path, Err: syscall.ENOENT}
					}
					return nil
				})), l.config(root))
				require.ErrorIs(t, err, fs.ErrNotExist)
				require.ErrorContains(t, err, kind+" "+root)
				requireNoGuess(t, err)
				require.LessOrEqual(t, attempts, 100, "attempts of attempts")
				require.Equal(t, before, list(t, root))
			})
		}
	}
}

func requireNoGuess(t *testing.T, err error) {
	t.Helper()
	require.NotContains(t, err.Error(), "concurrent")
	require.NotContains(t, err.Error(), "changed")
	require.NotErrorIs(t, err, durable.ErrInUse)
	require.NotErrorIs(t, err, durable.ErrExists)
}

func TestTargetInProc(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no /proc")
	}
	for _, dir := range []string{"/proc/x", "/proc/x/y", "/proc/self/x"} {
		_, err := durable.Open(durable.OS, durable.TargetConfig{Dir: dir})
		require.ErrorContains(t, err, "mkdir /proc/")
		requireNoGuess(t, err)
	}
}

// A parent that is there for one look and not for the next has that in its error.
func TestTargetParentNotFollowed(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(root, "srv"), 0o700))
	err := publish(wrap(hookFunc(func(op durabletest.Op) error {
		if op.Kind == "evalsymlinks" && filepath.Base(op.Path) == "srv" {
			return &fs.PathError{Op: "lstat", Path: op.Path, Err: syscall.ENOENT}
		}
		return nil
	})), durable.TargetConfig{Dir: filepath.Join(root, "srv", "data")})
	require.ErrorContains(t, err, "lstat "+filepath.Join(root, "srv"))
	requireNoGuess(t, err)
}

// A lock file that is never the one that was opened.
func TestTargetLockNeverNamed(t *testing.T) {
	root := t.TempDir()
	err := publish(wrap(hookFunc(func(op durabletest.Op) error {
		if op.Kind == "lock" {
			return os.Remove(op.Path)
		}
		return nil
	})), durable.TargetConfig{Dir: filepath.Join(root, "data")})
	require.ErrorContains(t, err, filepath.Join("."+"data.restore", "lock")+" was removed or replaced before it was locked")
	requireNoGuess(t, err)
}

func TestFileCauseIsTheSystems(t *testing.T) {
	root := t.TempDir()
	err := save(wrap(hookFunc(func(op durabletest.Op) error {
		if op.Kind == "create" {
			return &fs.PathError{Op: "open", Path: op.Path, Err: syscall.EEXIST}
		}
		return nil
	})), filepath.Join(root, "db"), "new")
	require.ErrorContains(t, err, "open "+root)
	require.True(t, errors.Is(err, fs.ErrExist))
	require.Empty(t, list(t, root))
}
