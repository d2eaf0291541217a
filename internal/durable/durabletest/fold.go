package durabletest

import (
	"io/fs"
	"os"
	"path/filepath"

	"etcd.example/snapshot/internal/durable"
)

// Fold is a file system that treats different names as one, as many do with names
// that differ in case. Like them it keeps the name with which a file was created,
// and finds it by the others.
type Fold struct {
	durable.FS
	// Same reports whether two names are the same.
	Same func(a, b string) bool
}

// real returns path with the names as they are stored.
func (f Fold) real(path string) string {
	dir := filepath.Dir(path)
	if dir == path {
		return path
	}
	dir = f.real(dir)
	real := filepath.Join(dir, filepath.Base(path))
	if _, err := os.Lstat(real); err == nil {
		return real
	}
	entries, _ := os.ReadDir(dir) // nothing where there is no directory
	for _, e := range entries {
		if f.Same(e.Name(), filepath.Base(path)) {
			return filepath.Join(dir, e.Name())
		}
	}
	return real
}

func (f Fold) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	return f.FS.OpenFile(f.real(name), flag, perm)
}

func (f Fold) Mkdir(name string, perm fs.FileMode) error { return f.FS.Mkdir(f.real(name), perm) }
func (f Fold) Link(oldname, newname string) error        { return f.FS.Link(f.real(oldname), f.real(newname)) }
func (f Fold) Rename(oldpath, newpath string) error {
	return f.FS.Rename(f.real(oldpath), f.real(newpath))
}
func (f Fold) Remove(name string) error                   { return f.FS.Remove(f.real(name)) }
func (f Fold) ReadDir(name string) ([]fs.DirEntry, error) { return f.FS.ReadDir(f.real(name)) }
func (f Fold) Lstat(name string) (fs.FileInfo, error)     { return f.FS.Lstat(f.real(name)) }
func (f Fold) Readlink(name string) (string, error)       { return f.FS.Readlink(f.real(name)) }
func (f Fold) SyncDir(name string) error                  { return f.FS.SyncDir(f.real(name)) }
func (f Fold) FreeSpace(name string) (int64, error)       { return f.FS.FreeSpace(f.real(name)) }

func (f Fold) RenameNoReplace(oldpath, newpath string) error {
	return f.FS.RenameNoReplace(f.real(oldpath), f.real(newpath))
}

// EvalSymlinks keeps the spelling if there are no links, as everywhere but on
// Windows.
func (f Fold) EvalSymlinks(name string) (string, error) {
	spelled := f.real(name)
	real, err := f.FS.EvalSymlinks(spelled)
	if err == nil && real == spelled {
		real = filepath.Clean(name)
	}
	return real, err
}
