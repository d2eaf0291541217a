package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Within reports whether path is dir or below it, and returns the path from dir to
// it. Both must be absolute, and their existing part free of symbolic links.
//
// One directory can have many names: it may be mounted twice, and some file
// systems ignore case. So Within compares directories that exist by identity. It
// compares names that do not exist yet as the directory above them does, if it can
// find that out.
func Within(fsys FS, dir, path string) (rel string, within bool, err error) {
	if rel, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(rel) {
		return rel, true, nil
	}
	rel = "."
	for {
		same, err := samePath(fsys, dir, path)
		if err != nil || same {
			return rel, same, err
		}
		parent := filepath.Dir(path)
		if parent == path {
			return "", false, nil
		}
		rel = filepath.Join(filepath.Base(path), rel)
		path = parent
	}
}

// samePath reports whether two paths name one file, or would once it exists.
func samePath(fsys FS, a, b string) (bool, error) {
	for {
		if a == b {
			return true, nil
		}
		infoA, err := lstatIfThere(fsys, a)
		if err != nil {
			return false, err
		}
		infoB, err := lstatIfThere(fsys, b)
		if err != nil {
			return false, err
		}
		if infoA != nil && infoB != nil && os.SameFile(infoA, infoB) {
			return true, nil
		}
		baseA, baseB := filepath.Base(a), filepath.Base(b)
		if !strings.EqualFold(baseA, baseB) {
			return false, nil
		}
		a, b = filepath.Dir(a), filepath.Dir(b)
		if baseA == baseB {
			continue
		}
		if folds, err := foldsCase(fsys, a); err != nil || !folds {
			return false, err
		}
	}
}

// foldsCase reports whether dir ignores case: it finds an entry by a name that it
// does not list. If dir holds nothing to test with, foldsCase tests the directories
// above it on the same file system.
func foldsCase(fsys FS, dir string) (bool, error) {
	for {
		folds, known, err := foldsListed(fsys, dir)
		if err != nil || known {
			return folds, err
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return false, nil
		}
		if there, err := exists(fsys, dir); err != nil {
			return false, err
		} else if there {
			if same, err := SameDevice(fsys, dir, parent); err != nil || !same {
				return false, err
			}
		}
		dir = parent
	}
}

func foldsListed(fsys FS, dir string) (folds, known bool, err error) {
	entries, err := fsys.ReadDir(dir)
	if isAbsent(err) || errors.Is(err, fs.ErrPermission) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	listed := make(map[string]bool, len(entries))
	for _, e := range entries {
		listed[e.Name()] = true
	}
	for _, e := range entries {
		other := swapCase(e.Name())
		if other == e.Name() {
			continue
		}
		there, err := exists(fsys, filepath.Join(dir, other))
		return there && !listed[other], true, err
	}
	return false, false, nil
}

// swapCase swaps the case of ASCII letters. A file system that ignores case at all
// ignores it for these.
func swapCase(name string) string {
	b := []byte(name)
	for i, c := range b {
		if 'a' <= c|0x20 && c|0x20 <= 'z' {
			b[i] = c ^ 0x20
		}
	}
	return string(b)
}
