package durable

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	partSuffix  = ".part"
	randomBytes = 8
	// maxBase is the longest base name, in bytes, that temporary names repeat.
	// File systems limit names to 255 bytes, a few to less.
	maxBase = 200
)

// shortBase returns the base name of path, or a hash of it if a name formed from it
// could be too long for the file system.
func shortBase(path string) string {
	base := filepath.Base(path)
	if len(base) > maxBase {
		sum := sha256.Sum256([]byte(base))
		base = hex.EncodeToString(sum[:])
	}
	return base
}

// tempName returns a new temporary name beside path.
func tempName(path string) string {
	return filepath.Join(filepath.Dir(path), "."+shortBase(path)+"."+randomName()+partSuffix)
}

func randomName() string {
	var r [randomBytes]byte
	_, _ = rand.Read(r[:]) // never fails
	return hex.EncodeToString(r[:])
}

// isTempName reports whether tempName could have returned name for path.
func isTempName(path, name string) bool {
	name, ok := strings.CutPrefix(name, "."+shortBase(path)+".")
	if !ok {
		return false
	}
	name, ok = strings.CutSuffix(name, partSuffix)
	if !ok || len(name) != 2*randomBytes || name != strings.ToLower(name) {
		return false
	}
	_, err := hex.DecodeString(name)
	return err == nil
}

// removeStale removes the temporary files for path that no call has locked. It
// leaves those of other users.
func removeStale(fsys FS, path string) error {
	entries, err := fsys.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !isTempName(path, e.Name()) || !e.Type().IsRegular() {
			continue
		}
		err := removeUnlocked(fsys, filepath.Join(filepath.Dir(path), e.Name()))
		switch {
		case errors.Is(err, ErrInUse), errors.Is(err, errors.ErrUnsupported),
			errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist):
		default:
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func removeUnlocked(fsys FS, name string) (err error) {
	f, err := fsys.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := fsys.TryLock(f); err != nil {
		return errors.Join(err, f.Close())
	}
	if openFilesAreBusy {
		return errors.Join(f.Close(), fsys.Remove(name))
	}
	return errors.Join(fsys.Remove(name), f.Close())
}
