package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const (
	dirPerm  = 0o700
	filePerm = 0o600
)

// MkdirAll creates dir and what is missing above it, with permissions 0700. It
// syncs nothing.
func MkdirAll(fsys FS, dir string) error {
	_, err := mkdirMissing(fsys, dir, func(string) error { return nil })
	return err
}

// mkdirMissing creates dir and what is missing above it, from the top, and calls
// done after each with the directory that has the new entry. It returns those that
// it created, even along with an error.
func mkdirMissing(fsys FS, dir string, done func(parent string) error) ([]string, error) {
	var missing []string
	for {
		_, err := fsys.Lstat(dir)
		if err == nil {
			break
		}
		parent := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || parent == dir {
			return nil, err
		}
		missing = append(missing, dir)
		dir = parent
	}
	var created []string
	for i := len(missing) - 1; i >= 0; i-- {
		err := fsys.Mkdir(missing[i], dirPerm)
		if errors.Is(err, fs.ErrExist) {
			continue // another call was faster
		}
		if err != nil {
			return created, err
		}
		created = append(created, missing[i])
		if err := done(filepath.Dir(missing[i])); err != nil {
			return created, err
		}
	}
	return created, nil
}

// removeCreated removes directories that mkdirMissing created, unless they hold
// something now.
func removeCreated(fsys FS, created []string) error {
	var errs []error
	for i := len(created) - 1; i >= 0; i-- {
		errs = append(errs, removeIfEmpty(fsys, created[i]))
	}
	return errors.Join(errs...)
}

// removeIfEmpty removes a directory unless it is gone or holds something.
func removeIfEmpty(fsys FS, dir string) error {
	err := fsys.Remove(dir)
	if errors.Is(err, fs.ErrExist) { // ENOTEMPTY
		return nil
	}
	return ignoreNotExist(err)
}

// removeAll removes name and as much as possible of what is below it. It is not an
// error if name does not exist.
func removeAll(fsys FS, name string) error {
	info, err := fsys.Lstat(name)
	if err != nil {
		return ignoreNotExist(err)
	}
	var errs []error
	if info.IsDir() {
		entries, err := fsys.ReadDir(name)
		errs = append(errs, ignoreNotExist(err))
		for _, e := range entries {
			errs = append(errs, removeAll(fsys, filepath.Join(name, e.Name())))
		}
	}
	errs = append(errs, ignoreNotExist(fsys.Remove(name)))
	return errors.Join(errs...)
}

// syncTree syncs everything below dir, each directory after what it holds, and
// dir last. Anything but files and directories is an error.
func syncTree(fsys FS, dir string) error {
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		switch {
		case e.IsDir():
			err = syncTree(fsys, name)
		case e.Type().IsRegular():
			err = syncFile(fsys, name)
		default:
			err = fmt.Errorf("%s is neither a file nor a directory", name)
		}
		if err != nil {
			return err
		}
	}
	return fsys.SyncDir(dir)
}

func syncFile(fsys FS, name string) error {
	f, err := fsys.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// exists reports whether there is anything at name, a symbolic link included.
func exists(fsys FS, name string) (bool, error) {
	info, err := lstatIfThere(fsys, name)
	return info != nil, err
}

// lstatIfThere is Lstat, but returns nil if name does not exist.
func lstatIfThere(fsys FS, name string) (fs.FileInfo, error) {
	info, err := fsys.Lstat(name)
	if isAbsent(err) {
		return nil, nil
	}
	return info, err
}

func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}
