package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// maxLinks is how many symbolic links in a row are followed.
const maxLinks = 40

// resolveFile returns the path of the file that path stands for, symbolic links
// followed to the end. It is an error if there is anything but a regular file.
func resolveFile(fsys FS, path string) (string, error) {
	for range maxLinks {
		dir, err := filepath.Abs(filepath.Dir(path))
		if err != nil {
			return "", err
		}
		if dir, err = fsys.EvalSymlinks(dir); err != nil {
			return "", err
		}
		base := filepath.Base(path)
		path = filepath.Join(dir, base)
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

// lockPath is the lock directory beside dir.
func lockPath(dir string) string {
	return filepath.Join(filepath.Dir(dir), "."+shortBase(dir)+intoLockName)
}

// within reports whether path is dir or below it.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// resolveParent returns the absolute path with the symbolic links above its
// last element followed, as far as the directories exist.
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
		real, err := fsys.EvalSymlinks(dir)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return "", err
		}
		info, err := fsys.Lstat(dir)
		if err == nil {
			if info.Mode()&fs.ModeSymlink == 0 {
				return "", errRetry // made meanwhile
			}
			return "", fmt.Errorf("%s is a symbolic link to nowhere: %w", dir, fs.ErrNotExist)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		dir, rest = filepath.Dir(dir), filepath.Join(filepath.Base(dir), rest)
	}
}
