package durable_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// lateOps are the operations of a call from its first publication on, by
// number.
func lateOps(t *testing.T, l layout) (from, to int) {
	t.Helper()
	from = -1
	for k := 0; ; k++ {
		var rec durabletest.Recorder
		root := l.prepare(t)
		err := publish(wrap(durabletest.KillAt(k), &rec), l.config(root))
		if err == nil {
			return from, k
		}
		if from < 0 && strings.Contains(rec.Trace(root), "publish ") {
			from = k
		}
	}
}

// A call that fails late and is then killed, or fails again, in the middle of
// taking back what it published.
func TestTargetFailsWhileTakingBack(t *testing.T) {
	for _, l := range sample() {
		for name, second := range map[string]func(k int) *durabletest.Faults{
			"killed": durabletest.KillAt,
			"fails":  func(k int) *durabletest.Faults { return durabletest.FailAt(k, syscall.ENOSPC) },
		} {
			t.Run(l.name+"/"+name, func(t *testing.T) {
				from, to := lateOps(t, l)
				for k := from; k < to; k += short.Step(1, 4) {
					// The second hook is not asked about operation k.
					for j := k; ; j += short.Step(1, 3) {
						root := l.prepare(t)
						f := second(j)
						fsys := wrap(durabletest.FailAt(k, syscall.EIO), f)
						err := publish(fsys, l.config(root))
						require.ErrorIs(t, err, syscall.EIO)
						require.Zero(t, fsys.CloseAll(), "files left open")
						l.requireMended(t, root)
						op, hit := f.Hit()
						if !hit {
							break
						}
						if name == "fails" {
							require.ErrorIs(t, err, syscall.ENOSPC, "%v", op)
						}
					}
				}
			})
		}
	}
}

// When the lock directory is removed already, another call may have created it
// again.
func TestRollBackSparesOthers(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			root := l.prepare(t)
			theirs := map[string]bool{}
			others := hookFunc(func(op durabletest.Op) error {
				if op.Kind != "remove" || !strings.HasSuffix(op.Path, ".restore") || theirs[op.Path] {
					return nil
				}
				// They found it without a lock and took it.
				theirs[op.Path] = true
				require.NoError(t, os.WriteFile(filepath.Join(op.Path, "lock"), nil, 0o600))
				require.NoError(t, os.Mkdir(filepath.Join(op.Path, "tree"), 0o700))
				return nil
			})
			_, to := lateOps(t, l)
			err := publish(wrap(others, durabletest.FailAt(to-2, syscall.EIO)), l.config(root))
			require.ErrorIs(t, err, syscall.EIO)
			require.False(t, l.committed(t, root))
			require.NotEmpty(t, theirs)
			for path := range theirs {
				require.FileExists(t, filepath.Join(path, "lock"))
				require.DirExists(t, filepath.Join(path, "tree"))
			}
		})
	}
}

// Between opening the lock file and locking it, its owner
// ends and another call takes over.
func TestTargetLockLost(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			root := l.prepare(t)
			var winner *durable.Target
			takeOver := hookFunc(func(op durabletest.Op) error {
				if op.Kind == "lock" && winner == nil {
					require.NoError(t, os.Remove(op.Path))
					require.NoError(t, os.Remove(filepath.Dir(op.Path)))
					var err error
					winner, err = durable.Open(wrap(), l.config(root))
					require.NoError(t, err)
				}
				return nil
			})
			_, err := durable.Open(wrap(takeOver), l.config(root))
			require.ErrorIs(t, err, durable.ErrInUse)
			require.NoError(t, fill(wrap(), winner))
			require.NoError(t, winner.Commit())
			require.Equal(t, l.complete(), list(t, root))
		})
	}
}

// The same, but no other call takes over: then the lock is free.
func TestTargetLockFreed(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			root := l.prepare(t)
			freed := map[string]bool{}
			free := hookFunc(func(op durabletest.Op) error {
				if op.Kind == "lock" && !freed[op.Path] {
					freed[op.Path] = true
					require.NoError(t, os.Remove(op.Path))
					require.NoError(t, os.Remove(filepath.Dir(op.Path)))
				}
				return nil
			})
			require.NoError(t, publish(wrap(free), l.config(root)))
			require.Equal(t, l.complete(), list(t, root))
		})
	}
}

// Directories above the target come and go with calls for its siblings.
func TestTargetParentsChange(t *testing.T) {
	for name, c := range map[string]struct {
		kind, path string // the first such operation comes too late
		change     func(root string) error
	}{
		"one removed":  {"mkdir", "a/b", func(root string) error { return os.Remove(root + "/a") }},
		"both removed": {"mkdir", "a/b/.data.restore", func(root string) error { return errors.Join(os.Remove(root+"/a/b"), os.Remove(root+"/a")) }},
		"made":         {"lstat", "a/b", func(root string) error { return os.MkdirAll(root+"/a/b", 0o700) }},
		"made later":   {"mkdir", "a", func(root string) error { return os.MkdirAll(root+"/a/b", 0o700) }},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			changed := false
			change := hookFunc(func(op durabletest.Op) error {
				if !changed && op.Kind == c.kind && op.Path == filepath.Join(root, c.path) {
					changed = true
					require.NoError(t, c.change(root))
				}
				return nil
			})
			require.NoError(t, publish(wrap(change), durable.TargetConfig{Dir: filepath.Join(root, "a", "b", "data")}))
			require.True(t, changed)
			require.Len(t, list(t, root), 9)
		})
	}
}
