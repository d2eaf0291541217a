package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// maxLinks is how many symbolic links in a row resolveFile follows.
const maxLinks = 40

// resolveFile follows symbolic links at path to the end and returns the path of the
// file. It is an error if anything but a regular file exists there.
func resolveFile(fsys FS, path string) (string, error) {
	for range maxLinks {
		if path == "" || os.IsPathSeparator(path[len(path)-1]) {
			return "", fmt.Errorf("%q does not name a file", path)
		}
		abs, err := Abs(fsys, path)
		if err != nil {
			return "", err
		}
		dir, err := fsys.EvalSymlinks(filepath.Dir(abs))
		if err != nil {
			return "", err
		}
		path = filepath.Join(dir, filepath.Base(abs))
		info, err := fsys.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return path, nil
		case err != nil:
			return "", err
		case info.Mode().IsRegular():
			return path, nil
		case info.IsDir():
			return "", fmt.Errorf("%s is a directory", path)
		case info.Mode()&fs.ModeSymlink == 0:
			return "", fmt.Errorf("%s is not a regular file", path)
		}
		link, err := fsys.Readlink(path)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(link) {
			link = dir + string(filepath.Separator) + link
		}
		path = link
	}
	return "", fmt.Errorf("%s: more than %d symbolic links", path, maxLinks)
}

// Abs is [filepath.Abs], except that ".." after a symbolic link leads to the
// parent of the directory that the link points to, as it does in system calls.
// On Windows, where it does not, Abs is filepath.Abs.
func Abs(fsys FS, path string) (string, error) {
	if runtime.GOOS == "windows" {
		return filepath.Abs(path)
	}
	abs := string(filepath.Separator)
	if !filepath.IsAbs(path) {
		var err error
		if abs, err = filepath.Abs("."); err != nil {
			return "", err
		}
	}
	for elem := range strings.SplitSeq(path, string(filepath.Separator)) {
		if elem == ".." {
			real, err := fsys.EvalSymlinks(abs)
			if err == nil {
				abs = real
			} else if !errors.Is(err, fs.ErrNotExist) {
				return "", err
			}
		}
		abs = filepath.Join(abs, elem)
	}
	return abs, nil
}

// lockPath returns the path of the lock directory beside dir.
func lockPath(dir string) string {
	return filepath.Join(filepath.Dir(dir), "."+shortBase(dir)+intoLockName)
}

// resolveParent returns the absolute path, with symbolic links in the existing
// directories above its last element followed.
func resolveParent(fsys FS, path string) (string, error) {
	if path == "" {
		return "", errors.New("no directory given")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	dir, rest := filepath.Dir(path), filepath.Base(path)
	if dir == path {
		return path, nil // the root of a file system
	}
	for {
		real, notFound := fsys.EvalSymlinks(dir)
		if notFound == nil {
			return filepath.Join(real, rest), nil
		}
		if !errors.Is(notFound, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return "", notFound
		}
		info, err := fsys.Lstat(dir)
		if err == nil {
			if info.Mode()&fs.ModeSymlink == 0 {
				return "", &retryError{notFound} // created meanwhile
			}
			return "", fmt.Errorf("%s is a dangling symbolic link: %w", dir, fs.ErrNotExist)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		dir, rest = filepath.Dir(dir), filepath.Join(filepath.Base(dir), rest)
	}
}
