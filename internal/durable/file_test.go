package durable_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
)

// save publishes content at path, in two writes.
func save(fsys durable.FS, path, content string) (err error) {
	f, err := durable.CreateFile(fsys, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Cleanup()) }()
	for _, part := range []string{content[:len(content)/2], content[len(content)/2:]} {
		n, err := io.WriteString(f.File(), part)
		if n < len(part) && err == nil {
			err = io.ErrShortWrite
		}
		if err != nil {
			return err
		}
	}
	return f.Commit()
}

func TestFilePublished(t *testing.T) {
	for name, base := range map[string]string{
		"plain":   "db",
		"spaces":  "my backup.db",
		"unicode": "бэкап-備份.db",
		"long":    strings.Repeat("n", 255),
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			path := filepath.Join(root, base)
			require.NoError(t, save(durable.OS, path, "first"))
			require.Equal(t, listing{base: "first"}, list(t, root))
			info, err := os.Stat(path)
			require.NoError(t, err)
			if runtime.GOOS != "windows" {
				require.Equal(t, fs.FileMode(0o600), info.Mode())
			}
			require.NoError(t, save(durable.OS, path, "second"))
			require.Equal(t, listing{base: "second"}, list(t, root))
		})
	}
}

func TestFileInvisibleUntilCommit(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "db")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o644))
	f, err := durable.CreateFile(durable.OS, path)
	require.NoError(t, err)
	_, err = f.File().Write([]byte("new"))
	require.NoError(t, err)
	require.Equal(t, "old", list(t, root)["db"])

	require.NoError(t, f.Cleanup())
	require.Equal(t, listing{"db": "old"}, list(t, root))
	require.NoError(t, f.Cleanup())
	require.ErrorIs(t, f.Commit(), fs.ErrClosed)
	require.Equal(t, listing{"db": "old"}, list(t, root))
}

func TestFileCleanupAfterCommit(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "db")
	f, err := durable.CreateFile(durable.OS, path)
	require.NoError(t, err)
	require.NoError(t, f.Commit())
	require.NoError(t, f.Cleanup())
	require.Equal(t, listing{"db": ""}, list(t, root))
	require.ErrorIs(t, f.Commit(), fs.ErrClosed)
}

func TestFileSymlinks(t *testing.T) {
	root := t.TempDir()
	volume := filepath.Join(root, "volume")
	require.NoError(t, os.Mkdir(volume, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(volume, "there"), []byte("old"), 0o600))
	link := func(name, target string) {
		require.NoError(t, os.Symlink(target, filepath.Join(root, name)))
	}
	link("absolute", filepath.Join(volume, "there"))
	link("relative", "volume/there")
	link("chain", "relative")
	link("dangling", "volume/missing")
	link("dir", "volume")
	link("nowhere", "void/missing")
	link("loop", "loop")
	link("to-dir", "dir")
	require.NoError(t, os.Mkdir(filepath.Join(volume, "deep"), 0o700))
	link("deep", "volume/deep")
	link("dots", "deep/../there")

	for name, target := range map[string]string{
		"absolute": "there", "relative": "there", "chain": "there",
		"dangling": "missing", "dir/new": "new",
		"dots": "there", "deep/../deep/../other": "other",
	} {
		t.Run(name, func(t *testing.T) {
			before := list(t, root)
			require.NoError(t, save(durable.OS, root+"/"+name, name))
			before["volume/"+target] = name
			require.Equal(t, before, list(t, root))
		})
	}
	for _, name := range []string{"nowhere", "loop", "to-dir"} {
		t.Run(name, func(t *testing.T) {
			before := list(t, root)
			require.Error(t, save(durable.OS, filepath.Join(root, name), name))
			require.Equal(t, before, list(t, root))
		})
	}
}

func TestFileRefused(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(root, "dir"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(root, "file"), nil, 0o600))
	before := list(t, root)

	_, err := durable.CreateFile(durable.OS, filepath.Join(root, "dir"))
	require.ErrorContains(t, err, "is a directory")
	for _, path := range []string{"", filepath.Join(root, "file") + "/", filepath.Join(root, "dir") + "/"} {
		_, err = durable.CreateFile(durable.OS, path)
		require.ErrorContains(t, err, "names no file")
	}
	_, err = durable.CreateFile(durable.OS, filepath.Join(root, "missing", "db"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = durable.CreateFile(durable.OS, filepath.Join(root, "file", "db"))
	require.Error(t, err)
	_, err = durable.CreateFile(durable.OS, os.DevNull)
	require.ErrorContains(t, err, "not a regular file")
	require.Equal(t, before, list(t, root))
}

func TestFileStaleTemporaries(t *testing.T) {
	root := t.TempDir()
	const random = "0123456789abcdef"
	file := func(name string) { require.NoError(t, os.WriteFile(filepath.Join(root, name), nil, 0o600)) }
	file(".db." + random + ".part") // stale
	keep := listing{"db": "new"}
	for _, name := range []string{
		".db.0123456789ABCDEF.part", // never made
		".db.0123456789abcdeg.part",
		".db.0123456789abcde.part",
		".db." + random + ".partial",
		".db2." + random + ".part", // of another file
		".x.db." + random + ".part",
		"db." + random + ".part",
	} {
		file(name)
		keep[name] = ""
	}
	dir := ".db.fedcba9876543210.part"
	require.NoError(t, os.Mkdir(filepath.Join(root, dir), 0o700))
	keep[dir+"/"] = ""
	link := ".db.aaaaaaaaaaaaaaaa.part"
	require.NoError(t, os.Symlink("db", filepath.Join(root, link)))
	keep[link] = "db"

	require.NoError(t, save(durable.OS, filepath.Join(root, "db"), "new"))
	require.Equal(t, keep, list(t, root))
}

func TestFileConcurrent(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "db")
	whole := map[string]bool{}
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		content := strings.Repeat(fmt.Sprintf("%02d", i), 5000)
		whole[content] = true
		wg.Go(func() {
			for range 8 {
				errs[i] = errors.Join(errs[i], save(durable.OS, path, content))
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	got := list(t, root)
	require.Len(t, got, 1)
	require.True(t, whole[got["db"]], "contents were mixed")
}

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
	for _, missing := range []error{syscall.EPERM, syscall.ENOTSUP, syscall.EMLINK} {
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

// If somebody else publishes before the failed call takes its file back, theirs
// stays.
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

// What is put back is synced as well, as far as that goes.
func TestFileRollBackIsSynced(t *testing.T) {
	for name, old := range map[string]string{"file taken back": "", "file put back": "old"} {
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

// Somebody who removes stale temporaries may take a new one for stale before it
// is locked, or remove a stale one first.
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
		if op.Kind == "open" {
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
				sweep(t, func(k int) *durabletest.Faults { return durabletest.FailAt(k, errno) }, func(f *durabletest.Faults) {
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
