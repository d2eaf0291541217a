package durabletest_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
)

// work performs every operation there is on root, an empty directory, and
// returns the first error.
func work(fsys durable.FS, root string) (err error) {
	at := func(name string) string { return filepath.Join(root, name) }
	f, err := fsys.OpenFile(at("f"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	whole := func(n int, err error) error {
		if n < 4 && err == nil {
			err = io.ErrShortWrite
		}
		return err
	}
	unsupported := func(err error) error {
		if errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		return err
	}
	for _, step := range []func() error{
		func() error { return fsys.TryLock(f) },
		func() error { return fsys.Allocate(f, 2) },
		func() error { return whole(f.Write([]byte("0123"))) },
		func() error { return whole(f.WriteAt([]byte("4567"), 4)) },
		func() error { return fsys.StartWriteback(f, 0, 8) },
		func() error { return fsys.AwaitWriteback(f, 0, 8) },
		func() error { _, err := f.Seek(0, io.SeekStart); return err },
		func() error { _, err := f.Read(make([]byte, 1)); return err },
		func() error { _, err := f.ReadAt(make([]byte, 1), 1); return err },
		func() error { _, err := fsys.CopyRange(f, 8, f, 0, 4); return unsupported(err) },
		func() error { return f.Truncate(8) },
		func() error { _, err := f.Stat(); return err },
		func() error { return f.Sync() },
		func() error { return fsys.Mkdir(at("d"), 0o700) },
		func() error { return fsys.RenameNoReplace(at("d"), at("e")) },
		func() error { return fsys.Link(at("f"), at("g")) },
		func() error { return fsys.Rename(at("g"), at("e/h")) },
		func() error { return fsys.Remove(at("f")) },
		func() error { _, err := fsys.ReadDir(root); return err },
		func() error { _, err := fsys.Lstat(at("e")); return err },
		func() error { _, err := fsys.EvalSymlinks(root); return err },
		func() error { _, err := fsys.FreeSpace(root); return unsupported(err) },
		func() error { return fsys.SyncDir(root) },
		func() error { _, err := fsys.Readlink(at("e")); return notALink(err) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func notALink(err error) error {
	if errors.Is(err, syscall.EINVAL) {
		return nil
	}
	return err
}

func names(t *testing.T, root string) []string {
	t.Helper()
	var list []string
	require.NoError(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		list = append(list, path[len(root):])
		return err
	}))
	return list
}

func TestTrace(t *testing.T) {
	root := t.TempDir()
	var rec durabletest.Recorder
	fsys := durabletest.Wrap(durable.OS, &rec)
	require.NoError(t, work(fsys, root))
	require.Zero(t, fsys.CloseAll())
	want := `create f
lock f
allocate f 2
write f 8
writeback f 8
await f 8
copy f -> f 4
truncate f 8
sync f
mkdir d
publish d -> e
link f -> g
rename g -> e/h
remove f
syncdir .
`
	if runtime.GOOS != "linux" {
		want = strings.Replace(want, "copy f -> f 4\n", "", 1)
	}
	require.Equal(t, want, rec.Trace(root))
	require.Equal(t, []string{"", "/e", "/e/h"}, names(t, root))
}

func TestTraceSkipsFailures(t *testing.T) {
	root := t.TempDir()
	var rec durabletest.Recorder
	fsys := durabletest.Wrap(durable.OS, &rec).NoSync()
	require.Error(t, fsys.Remove(filepath.Join(root, "missing")))
	require.Error(t, fsys.SyncDir(filepath.Join(root, "missing")))
	require.NoError(t, fsys.Mkdir(filepath.Join(root, "x-0123456789abcdef"), 0o700))
	require.Equal(t, "mkdir x-*\n", rec.Trace(root))
}

const ops = 26 // those of work

func TestFailAtEach(t *testing.T) {
	for k := range ops + 1 {
		f := durabletest.FailAt(k, syscall.EIO)
		err := work(durabletest.Wrap(durable.OS, f), t.TempDir())
		op, hit := f.Hit()
		require.Equal(t, k < ops, hit, "%d: %v", k, op)
		if hit {
			require.ErrorIs(t, err, syscall.EIO, "%v", op)
		} else {
			require.NoError(t, err)
			require.False(t, f.Reached(k))
			require.True(t, f.Reached(k-1))
		}
	}
}

func TestShortWrite(t *testing.T) {
	shorts := 0
	for k := range ops {
		root := t.TempDir()
		f := durabletest.FailAt(k, durabletest.ErrShortWrite)
		err := work(durabletest.Wrap(durable.OS, f), root)
		if op, hit := f.Hit(); hit {
			shorts++
			require.Equal(t, "write", op.Kind)
			require.ErrorIs(t, err, io.ErrShortWrite)
		} else {
			require.NoError(t, err)
		}
	}
	require.Equal(t, 2, shorts)
}

func TestWriteFailsHalfWay(t *testing.T) {
	for name, f := range map[string]*durabletest.Faults{
		"fail": durabletest.FailAt(1, syscall.ENOSPC), "kill": durabletest.KillAt(1), "dead": durabletest.FailFrom(1, syscall.EIO),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			file, err := durabletest.Wrap(durable.OS, f).OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
			require.NoError(t, err)
			n, err := file.Write([]byte("01234567"))
			require.Error(t, err)
			require.Equal(t, 4, n)
			got, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, "0123", string(got))
			if name == "fail" {
				require.NoError(t, file.Close())
			} else {
				require.Error(t, file.Close())
			}
		})
	}
}

func TestKillEndsLocks(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "f")
	fsys := durabletest.Wrap(durable.OS, durabletest.KillAt(2))
	file, err := fsys.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	require.NoError(t, fsys.TryLock(file))
	other, err := durable.OS.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	require.ErrorIs(t, durable.OS.TryLock(other), durable.ErrInUse)

	require.ErrorContains(t, fsys.Remove(path), "killed at remove")
	require.ErrorContains(t, fsys.Mkdir(filepath.Join(root, "d"), 0o700), "killed at mkdir")
	require.Equal(t, []string{"", "/f"}, names(t, root))
	require.NoError(t, durable.OS.TryLock(other))
	require.NoError(t, other.Close())
	require.Zero(t, fsys.CloseAll())
}

func TestCloseTwice(t *testing.T) {
	fsys := durabletest.Wrap(durable.OS)
	file, err := fsys.OpenFile(filepath.Join(t.TempDir(), "f"), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	require.ErrorIs(t, file.Close(), fs.ErrClosed)

	_, err = fsys.OpenFile(filepath.Join(t.TempDir(), "f"), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	require.Equal(t, 1, fsys.CloseAll())
}
