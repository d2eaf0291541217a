package durable_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
)

// without is a file system that lacks something.
type without struct {
	durable.FS
	link, lock error
}

func (w without) Link(oldname, newname string) error {
	if w.link != nil {
		return w.link
	}
	return w.FS.Link(oldname, newname)
}

func (w without) TryLock(f durable.File) error {
	if w.lock != nil {
		return w.lock
	}
	return w.FS.TryLock(f)
}

func TestFileWithoutLinks(t *testing.T) {
	for _, missing := range []error{syscall.EPERM, syscall.ENOTSUP, syscall.EMLINK, syscall.EXDEV} {
		root := t.TempDir()
		path := filepath.Join(root, "db")
		require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
		require.NoError(t, save(without{FS: durable.OS, link: missing}, path, "new"))
		require.Equal(t, listing{"db": "new"}, list(t, root))

		failing := wrap(failKind("syncdir", syscall.EIO))
		err := save(without{FS: failing, link: missing}, path, "newer")
		require.ErrorIs(t, err, syscall.EIO)
		require.ErrorContains(t, err, "the new file stays")
		require.Equal(t, listing{"db": "newer"}, list(t, root))
	}
}

func TestFileWithoutLocks(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "db")
	stale := ".db.0123456789abcdef.part"
	require.NoError(t, os.WriteFile(filepath.Join(root, stale), nil, 0o600))
	require.NoError(t, save(without{FS: durable.OS, lock: errors.ErrUnsupported}, path, "new"))
	require.Equal(t, listing{"db": "new", stale: ""}, list(t, root), "it may be in use")
}

// kindFault makes every operation of one kind fail.
type kindFault struct {
	kind string
	err  error
}

func failKind(kind string, err error) kindFault { return kindFault{kind, err} }

func (f kindFault) Before(op durabletest.Op) error {
	if op.Kind == f.kind {
		return f.err
	}
	return nil
}

func (kindFault) After(durabletest.Op, error) {}

// If another call publishes before the failed call removes its file, the file of
// the other call stays.
func TestFileRollBackSparesOthers(t *testing.T) {
	for name, publishTheirs := range map[string]func(path string) error{
		"a call": func(path string) error { return save(wrap(), path, "theirs") },
		"a rename": func(path string) error {
			if err := os.WriteFile(path+".new", []byte("theirs"), 0o600); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			path := filepath.Join(root, "db")
			require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
			done := false
			interfere := hookFunc(func(op durabletest.Op) error {
				if op.Kind != "syncdir" || done {
					return nil
				}
				done = true
				require.NoError(t, publishTheirs(path))
				return syscall.EIO
			})
			require.ErrorIs(t, save(wrap(interfere), path, "ours"), syscall.EIO)
			require.Equal(t, listing{"db": "theirs"}, list(t, root))
		})
	}
}

// If the second name of the old file cannot be removed, the error reports that.
func TestFileRollBackSparesOthersAndTells(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "db")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	done := false
	interfere := hookFunc(func(op durabletest.Op) error {
		switch {
		case op.Kind == "syncdir" && !done:
			done = true
			require.NoError(t, os.WriteFile(path+".new", []byte("theirs"), 0o600))
			require.NoError(t, os.Rename(path+".new", path))
			return syscall.EIO
		case op.Kind == "remove" && done:
			return syscall.EROFS
		}
		return nil
	})
	err := save(wrap(interfere), path, "ours")
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorIs(t, err, syscall.EROFS)
	got := list(t, root)
	require.Equal(t, "theirs", got["db"])
	require.Len(t, got, 2)
}

// A restored old file is synced too, if the disk allows it.
func TestFileRollBackIsSynced(t *testing.T) {
	for name, old := range map[string]string{"file new rolled back": "", "file old restored": "old"} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			path := filepath.Join(root, "db")
			if old != "" {
				require.NoError(t, os.WriteFile(path, []byte(old), 0o600))
			}
			failed := false
			once := hookFunc(func(op durabletest.Op) error {
				if op.Kind == "syncdir" && !failed {
					failed = true
					return syscall.EIO
				}
				return nil
			})
			var rec durabletest.Recorder
			require.ErrorIs(t, save(wrap(once, &rec), path, db), syscall.EIO)
			golden(t, name, &rec, root)
		})
	}
}

// Another call that removes stale temporary files may mistake a new one for stale
// before it is locked, or remove a stale one first.
func TestFileTemporaryRemoved(t *testing.T) {
	for kind, stale := range map[string]string{"lock": "", "open": ".db.0123456789abcdef.part"} {
		t.Run(kind, func(t *testing.T) {
			root := t.TempDir()
			path := filepath.Join(root, "db")
			if stale != "" {
				require.NoError(t, os.WriteFile(filepath.Join(root, stale), nil, 0o600))
			}
			removed := false
			remove := hookFunc(func(op durabletest.Op) error {
				if op.Kind == kind && !removed {
					removed = true
					return os.Remove(op.Path)
				}
				return nil
			})
			require.NoError(t, save(wrap(remove), path, "new"))
			require.True(t, removed)
			require.Equal(t, listing{"db": "new"}, list(t, root))
		})
	}
}

// What another user left in a shared directory is no obstacle.
func TestFileTemporaryOfAnotherUser(t *testing.T) {
	root := t.TempDir()
	stale := ".db.0123456789abcdef.part"
	require.NoError(t, os.WriteFile(filepath.Join(root, stale), nil, 0o600))
	denied := hookFunc(func(op durabletest.Op) error {
		if op.Kind == "open" && filepath.Base(op.Path) == stale {
			return fs.ErrPermission
		}
		return nil
	})
	require.NoError(t, save(wrap(denied), filepath.Join(root, "db"), "new"))
	require.Equal(t, listing{"db": "new", stale: ""}, list(t, root))
}

type hookFunc func(op durabletest.Op) error

func (h hookFunc) Before(op durabletest.Op) error { return h(op) }
func (hookFunc) After(durabletest.Op, error)      {}

func TestFileFaults(t *testing.T) {
	for _, old := range []listing{{}, {"db": "old"}, {"db": "old", ".db.0123456789abcdef.part": "stale"}} {
		for name, errno := range faults {
			t.Run(fmt.Sprintf("%d/%s", len(old), name), func(t *testing.T) {
				sweepBy(t, 1, func(k int) *durabletest.Faults { return durabletest.FailAt(k, errno) }, func(f *durabletest.Faults) {
					root := t.TempDir()
					for name, content := range old {
						require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(content), 0o600))
					}
					path := filepath.Join(root, "db")
					fsys := wrap(f)
					err := save(fsys, path, db)
					require.Zero(t, fsys.CloseAll(), "files left open")
					op, hit := f.Hit()
					got := list(t, root)
					if !hit {
						require.NoError(t, err)
						require.Equal(t, listing{"db": db}, got)
						return
					}
					want := errno
					if errno == durabletest.ErrShortWrite {
						want = io.ErrShortWrite
					}
					require.ErrorIs(t, err, want, "%v", op)
					delete(got, ".db.0123456789abcdef.part")
					if old["db"] == "" {
						require.Empty(t, got, "%v: %v", op, err)
					} else {
						require.Equal(t, listing{"db": "old"}, got, "%v: %v", op, err)
					}
					require.NoError(t, save(wrap(), path, db))
					require.Equal(t, listing{"db": db}, list(t, root))
				})
			})
		}
	}
}

// A call that fails and then fails once more tells both errors, and where a
// directory is sticky as well.
func TestFileFailsTwice(t *testing.T) {
	for _, mode := range []fs.FileMode{0o700, 0o700 | fs.ModeSticky} {
		for _, old := range []string{"", "old"} {
			t.Run(fmt.Sprint(mode, " ", old), func(t *testing.T) {
				twice := 0
				for k, more := 0, true; more; k++ {
					for j := k + 1; ; j++ {
						root := t.TempDir()
						require.NoError(t, os.Chmod(root, mode))
						path := filepath.Join(root, "db")
						if old != "" {
							require.NoError(t, os.WriteFile(path, []byte(old), 0o600))
						}
						first, second := durabletest.FailAt(k, syscall.EIO), durabletest.FailAt(j-1, syscall.ENOSPC) // which is not asked about k
						fsys := wrap(first, second)
						err := save(fsys, path, db)
						require.Zero(t, fsys.CloseAll(), "files left open")
						if _, more = first.Hit(); !more {
							require.NoError(t, err)
							break
						}
						require.ErrorIs(t, err, syscall.EIO)
						op, hit := second.Hit()
						if !hit {
							break
						}
						twice++
						require.ErrorIs(t, err, syscall.ENOSPC, "%v", op)
					}
				}
				require.NotZero(t, twice)
			})
		}
	}
}

func TestFileKilled(t *testing.T) {
	for _, old := range []string{"", "old"} {
		t.Run("old "+old, func(t *testing.T) {
			sweep(t, durabletest.KillAt, func(f *durabletest.Faults) {
				root := t.TempDir()
				path := filepath.Join(root, "db")
				if old != "" {
					require.NoError(t, os.WriteFile(path, []byte(old), 0o600))
				}
				err := save(wrap(f), path, db)
				got, there := list(t, root)["db"]
				if _, hit := f.Hit(); !hit {
					require.NoError(t, err)
				}
				require.Equal(t, there, got != "")
				require.Contains(t, []string{old, db}, got)
				require.NoError(t, save(wrap(), path, "next"))
				require.Equal(t, listing{"db": "next"}, list(t, root))
			})
		})
	}
}

func TestFileTraces(t *testing.T) {
	for _, name := range []string{"file new", "file replaced"} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			path := filepath.Join(root, "db")
			if name == "file replaced" {
				require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
			}
			var rec durabletest.Recorder
			require.NoError(t, save(wrap(&rec), path, db))
			golden(t, name, &rec, root)
		})
	}
}
