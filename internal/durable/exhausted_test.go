package durable_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
)

// opening counts only what takes a descriptor, and makes only that fail.
type opening struct{ *durabletest.Faults }

func (o opening) Before(op durabletest.Op) error {
	switch op.Kind {
	case "create", "open", "readdir", "syncdir":
		return o.Faults.Before(op)
	}
	return nil
}

// A process that is at its limit of descriptors, and whose other goroutines take
// each that becomes free, cleans up all the same.
func TestTargetWithoutDescriptors(t *testing.T) {
	for _, l := range layouts {
		for _, errno := range []error{syscall.EMFILE, syscall.ENFILE} {
			t.Run(l.name+"/"+errno.Error(), func(t *testing.T) {
				sweep(t, func(k int) *durabletest.Faults { return durabletest.FailFrom(k, errno) }, func(f *durabletest.Faults) {
					root := l.prepare(t)
					before := list(t, root)
					fsys := wrap(opening{f})
					err := publish(fsys, l.config(root))
					require.Zero(t, fsys.CloseAll(), "files left open")
					if err == nil {
						require.Equal(t, l.complete(), list(t, root))
						return
					}
					op, _ := f.Hit()
					require.ErrorIs(t, err, errno)
					require.Equal(t, before, list(t, root), "%v: %v", op, err)
					require.NoError(t, publish(wrap(), l.config(root)))
				})
			})
		}
	}
}

// What is remembered of a directory is not taken for all that it holds: what
// others put there stays, and so does the directory.
func TestTargetWithoutDescriptorsSparesOthers(t *testing.T) {
	root := t.TempDir()
	var exhausted bool
	fsys := wrap(hookFunc(func(op durabletest.Op) error {
		if exhausted && (op.Kind == "open" || op.Kind == "readdir" || op.Kind == "syncdir") {
			return syscall.EMFILE
		}
		return nil
	}))
	cfg := durable.TargetConfig{Dir: filepath.Join(root, "data"), AllowEmptyDir: true}
	require.NoError(t, os.Mkdir(cfg.Dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(cfg.Dir, "notes"), nil, 0o600))
	exhausted = true
	_, err := durable.Open(fsys, cfg)
	require.ErrorIs(t, err, syscall.EMFILE)
	require.NotErrorIs(t, err, durable.ErrExists)
	require.Equal(t, listing{"data/": "", "data/notes": ""}, list(t, root))
}

func TestFileWithoutDescriptors(t *testing.T) {
	for _, old := range []listing{{}, {"db": "old"}} {
		sweep(t, func(k int) *durabletest.Faults { return durabletest.FailFrom(k, syscall.EMFILE) }, func(f *durabletest.Faults) {
			root := t.TempDir()
			for name, content := range old {
				require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(content), 0o600))
			}
			fsys := wrap(opening{f})
			err := save(fsys, filepath.Join(root, "db"), "new")
			require.Zero(t, fsys.CloseAll(), "files left open")
			if err == nil {
				require.Equal(t, listing{"db": "new"}, list(t, root))
				return
			}
			op, _ := f.Hit()
			require.NotEqual(t, "syncdir", op.Kind, "what that needs is held")
			require.ErrorIs(t, err, syscall.EMFILE)
			require.Equal(t, old, list(t, root))
		})
	}
}
