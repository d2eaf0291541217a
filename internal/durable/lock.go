package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// What a lock directory may hold. A directory of that name with anything else
// in it is somebody else's.
const (
	lockName    = "lock"
	treeName    = "tree"
	intentName  = "intent"
	trashPrefix = "trash-"
)

// errNotOurs: the name of the lock directory is taken.
var errNotOurs = errors.New("needed for staging, but somebody else's")

// errRetry: a concurrent call removed what was just found. Start again.
var errRetry = errors.New("changed by a concurrent call")

// retryIfGone makes errRetry of an error that says that something is not there
// any more.
func retryIfGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errRetry
	}
	return err
}

// lockDir is the directory in which one target is staged. Whoever has locked
// the file "lock" in it owns all of it; the lock ends with the process.
type lockDir struct {
	fsys FS
	path string
	f    File // the lock file; nil once closed
	free bool // the lock file is removed: the directory may be another's
}

// acquire makes and locks a lock directory. What it holds already is what a
// killed call left. It is ErrInUse if somebody has locked it, and errRetry if
// its parent is gone.
func acquire(fsys FS, path string) (*lockDir, error) {
	for range maxAttempts {
		l, err := tryAcquire(fsys, path)
		if !errors.Is(err, errRetry) {
			return l, err
		}
		if _, err := fsys.Lstat(filepath.Dir(path)); err != nil {
			return nil, retryIfGone(err)
		}
	}
	return nil, fmt.Errorf("lock %s: %w %d times", path, errRetry, maxAttempts)
}

func tryAcquire(fsys FS, path string) (*lockDir, error) {
	err := fsys.Mkdir(path, dirPerm)
	made := err == nil
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errRetry
	case errors.Is(err, fs.ErrExist):
		if err := isOurs(fsys, path); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	}

	l := &lockDir{fsys: fsys, path: path}
	f, err := fsys.OpenFile(l.join(lockName), os.O_RDWR|os.O_CREATE, filePerm)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errRetry
	}
	if err != nil {
		if made {
			err = errors.Join(err, removeIfEmpty(fsys, path))
		}
		return nil, err
	}
	l.f = f
	err = l.lock(made)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, ErrInUse), errors.Is(err, errRetry):
		return nil, errors.Join(err, l.close())
	}
	// The lock file may be removed by its owner only.
	if l.lock(made) == nil {
		return nil, errors.Join(err, l.release(), l.close())
	}
	return nil, errors.Join(err, l.close())
}

func (l *lockDir) join(name string) string { return filepath.Join(l.path, name) }

// lock locks the opened lock file. made says whether this call has made the
// directory: where there are no locks, that is what decides.
func (l *lockDir) lock(made bool) error {
	err := l.fsys.TryLock(l.f)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		if !made {
			return fmt.Errorf("%s exists and its file system has no locks; remove it if nothing is at work there: %w", l.path, ErrInUse)
		}
	case errors.Is(err, ErrInUse):
		return fmt.Errorf("%s: %w", l.path, ErrInUse)
	case err != nil:
		return err
	}
	if err := stillNamed(l.fsys, l.f, l.join(lockName)); errors.Is(err, ErrInUse) {
		return errRetry // its owner removed it, done
	} else if err != nil {
		return err
	}
	return nil
}

// isOurs returns an error unless path is a directory that no other user can have
// made or write to, and that holds only what lock directories hold.
func isOurs(fsys FS, path string) error {
	info, err := fsys.Lstat(path)
	if err != nil {
		return retryIfGone(err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s: %w", path, errNotOurs)
	}
	parent, err := fsys.Lstat(filepath.Dir(path))
	if err != nil {
		return retryIfGone(err)
	}
	if foreign(parent, info) {
		return fmt.Errorf("%s: %w: another user can write to it", path, errNotOurs)
	}
	entries, err := fsys.ReadDir(path)
	if err != nil {
		return retryIfGone(err)
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == lockName, name == treeName, name == intentName, strings.HasPrefix(name, trashPrefix):
		default:
			return fmt.Errorf("%s: %w: it holds %q", path, errNotOurs, name)
		}
	}
	return nil
}

// recover turns the lock directory of a killed call into an empty one. A
// directory that the call published early is withdrawn, if dir is not published
// and nobody has touched it.
func (l *lockDir) recover(dir string) error {
	in, ok, err := l.readIntent()
	if err == nil && ok {
		err = l.withdraw(in, dir)
	}
	if err == nil {
		err = l.clear()
	}
	if err != nil {
		return fmt.Errorf("remove leftovers in %s: %w", l.path, err)
	}
	return nil
}

// clear removes everything but the lock.
func (l *lockDir) clear() error {
	entries, err := l.fsys.ReadDir(l.path)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.Name() != lockName {
			errs = append(errs, removeAll(l.fsys, l.join(e.Name())))
		}
	}
	return errors.Join(errs...)
}

// release removes the lock, and the directory unless something is left in it.
// After an error it can be called again.
func (l *lockDir) release() error {
	if !l.free {
		if openFilesAreBusy {
			if err := l.close(); err != nil {
				return err
			}
		}
		if err := l.fsys.Remove(l.join(lockName)); ignoreNotExist(err) != nil {
			return err
		}
		l.free = true
	}
	// Closed first: on NFS a removed file leaves the directory when it is closed.
	if err := l.close(); err != nil {
		return err
	}
	return removeIfEmpty(l.fsys, l.path)
}

func (l *lockDir) close() error {
	if l.f == nil {
		return nil
	}
	f := l.f
	l.f = nil
	return errors.Join(l.fsys.Unlock(f), f.Close())
}

// trash moves name, a published directory, out of sight in one step, and then
// removes it. It does not need the lock.
func (l *lockDir) trash(name string) error {
	bin := l.join(trashPrefix + randomName())
	err := l.moveIn(name, bin)
	if err == nil {
		// Before it is taken apart: a power cut must not show half of it. What
		// cannot be synced stays for the next call.
		err = l.fsys.SyncDir(filepath.Dir(name))
	}
	if err == nil {
		err = removeAll(l.fsys, bin)
	}
	return err
}

// moveIn renames name to bin in the lock directory, which it makes anew if the
// lock is released already.
func (l *lockDir) moveIn(name, bin string) error {
	for range maxAttempts {
		if err := l.fsys.Mkdir(l.path, dirPerm); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := l.fsys.Rename(name, bin); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return fmt.Errorf("move %s to %s: %w %d times", name, bin, errRetry, maxAttempts)
}
