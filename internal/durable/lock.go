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
// in it is not ours.
const (
	lockName    = "lock"
	treeName    = "tree"
	intentName  = "intent"
	trashPrefix = "trash-"
)

// errNotOurs: the name of the lock directory is taken.
var errNotOurs = errors.New("in the way of staging")

// lockDir is the directory in which one target is staged. The
// call that has locked the file "lock" in it owns all of it; the lock ends with
// the process.
type lockDir struct {
	fsys FS
	path string
	f    File // the lock file; nil once closed
	free bool // the lock file is removed: the directory may be another's
	// recovered: what a killed call left is removed. Before that it may be
	// needed by the next call, the intent above all.
	recovered bool
	// lockless: there are no locks here. The directory belongs to the call that
	// made it, until that removes it.
	lockless bool
}

// acquire makes and locks a lock directory. What it holds already is what a
// killed call left. It is ErrInUse if another call has locked it, and a
// retryError if its parent is gone.
func acquire(fsys FS, path string) (*lockDir, error) {
	var last *retryError
	for range maxAttempts {
		l, err := tryAcquire(fsys, path)
		if !errors.As(err, &last) {
			return l, err
		}
		if _, err := fsys.Lstat(filepath.Dir(path)); err != nil {
			return nil, retryIfGone(err)
		}
	}
	return nil, last.giveUp()
}

func tryAcquire(fsys FS, path string) (*lockDir, error) {
	err := fsys.Mkdir(path, dirPerm)
	made := err == nil
	switch {
	case errors.Is(err, fs.ErrExist):
		if err := isOurs(fsys, path); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, retryIfGone(err)
	}

	l := &lockDir{fsys: fsys, path: path}
	fresh, err := l.open()
	if err != nil {
		if made {
			err = errors.Join(err, removeIfEmpty(fsys, path))
		}
		return nil, err
	}
	err = l.lock(made)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, ErrInUse), isRetry(err):
		err = errors.Join(err, l.close())
		if l.lockless && fresh { // not ours, but in the way of its owner
			err = errors.Join(err, ignoreNotExist(fsys.Remove(l.join(lockName))))
		}
		return nil, err
	}
	// The lock file may be removed by its owner only.
	if l.lock(made) == nil {
		return nil, errors.Join(err, l.release(), l.close())
	}
	return nil, errors.Join(err, l.close())
}

// open opens the lock file, and says whether it had to make it.
func (l *lockDir) open() (fresh bool, err error) {
	name := l.join(lockName)
	if l.f, err = l.fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, filePerm); err == nil {
		return true, nil
	}
	if errors.Is(err, fs.ErrExist) {
		l.f, err = l.fsys.OpenFile(name, os.O_RDWR, 0)
	}
	return false, retryIfGone(err)
}

func (l *lockDir) join(name string) string { return filepath.Join(l.path, name) }

// lock locks the opened lock file. made says whether this call has made the
// directory: where there are no locks, that is what decides.
func (l *lockDir) lock(made bool) error {
	err := l.fsys.TryLock(l.f)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		l.lockless = true
		if !made {
			return fmt.Errorf("%s exists and its file system has no locks; remove it if nothing is at work there: %w", l.path, ErrInUse)
		}
		return nil
	case errors.Is(err, ErrInUse):
		return fmt.Errorf("%s: %w", l.path, ErrInUse)
	case err != nil:
		return err
	}
	err = stillNamed(l.fsys, l.f, l.join(lockName))
	if errors.Is(err, ErrInUse) { // its owner removed it, done
		return &retryError{fmt.Errorf("%s was removed or replaced before it was locked", l.join(lockName))}
	}
	return err
}

// isOurs returns an error unless path is a directory that, as far as the file
// system tells, no other user can have made or write to, and that holds only what
// lock directories hold.
func isOurs(fsys FS, path string) error {
	info, err := fsys.Lstat(path)
	if err != nil {
		return retryIfGone(err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is %w, move it away: it is not a directory", path, errNotOurs)
	}
	parent, err := fsys.Lstat(filepath.Dir(path))
	if err != nil {
		return retryIfGone(err)
	}
	if foreign, err := isForeign(fsys, path, parent, info); err != nil {
		return retryIfGone(err)
	} else if foreign {
		return fmt.Errorf("%s is %w, move it away: another user can write to it", path, errNotOurs)
	}
	entries, err := fsys.ReadDir(path)
	if err != nil {
		return retryIfGone(err)
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == lockName, name == treeName, name == intentName, strings.HasPrefix(name, trashPrefix):
		default:
			return fmt.Errorf("%s is %w, move it away: it holds %q", path, errNotOurs, name)
		}
	}
	return nil
}

// recover turns the lock directory of a killed call into an empty one. A
// directory that the call published early is withdrawn, if dir is not published
// and the early directory is as the call left it.
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
	l.recovered = true
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
	if l.lockless {
		return l.removeLockless()
	}
	return removeIfEmpty(l.fsys, l.path)
}

// removeLockless removes the directory. Other calls, which find out only in it
// that there are no locks, may put a lock file there meanwhile.
func (l *lockDir) removeLockless() error {
	for range maxAttempts {
		err := l.fsys.Remove(l.path)
		if !errors.Is(err, fs.ErrExist) {
			return ignoreNotExist(err)
		}
		if err := l.fsys.Remove(l.join(lockName)); ignoreNotExist(err) != nil {
			return err
		}
	}
	return nil // something else is in it
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
	var err error
	for range maxAttempts {
		if err := l.fsys.Mkdir(l.path, dirPerm); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err = l.fsys.Rename(name, bin); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return (&retryError{err}).giveUp()
}
