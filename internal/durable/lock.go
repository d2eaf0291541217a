package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The names that a lock directory may hold. A directory with any other entry is
// not a lock directory of this package.
const (
	lockName    = "lock"
	treeName    = "tree"
	intentName  = "intent"
	trashPrefix = "trash-"
)

// errNotOurs: the path of the lock directory is something else.
var errNotOurs = errors.New("in the way of staging")

// lockDir is the directory in which one target is staged. The call that has locked
// the file "lock" in it owns all of it; the lock ends with the process.
type lockDir struct {
	fsys FS
	path string
	f    File // the lock file; nil once closed
	free bool // the lock file is removed: another call may own the directory
	// recovered: what a killed call left is removed. Before that, the next call
	// may need it, above all the intent.
	recovered bool
	// lockless: the file system has no locks. The directory belongs to the call
	// that created it, until that call removes it.
	lockless bool
}

// acquire creates and locks a lock directory. If it holds something already, a
// killed call left that. The error is ErrInUse if another call has locked it, and
// a retryError if its parent is gone.
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
	created := err == nil
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
		if created {
			err = errors.Join(err, removeIfEmpty(fsys, path))
		}
		return nil, err
	}
	err = l.lock(created)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, ErrInUse), isRetry(err):
		err = errors.Join(err, l.close())
		if l.lockless && fresh { // it would be in the way of the directory's owner
			err = errors.Join(err, ignoreNotExist(fsys.Remove(l.join(lockName))))
		}
		return nil, err
	}
	// Only the owner of the lock may remove the lock file.
	if l.lock(created) == nil {
		return nil, errors.Join(err, l.release(), l.close())
	}
	return nil, errors.Join(err, l.close())
}

// open opens the lock file, and reports whether it created it.
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

// lock locks the opened lock file. created tells whether this call has created the
// directory: without locks, the call that did owns it.
func (l *lockDir) lock(created bool) error {
	err := l.fsys.TryLock(l.f)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		l.lockless = true
		if !created {
			return fmt.Errorf("%s exists and its file system has no locks; remove it if nothing is at work there: %w", l.path, ErrInUse)
		}
		return nil
	case errors.Is(err, ErrInUse):
		return fmt.Errorf("%s: %w", l.path, ErrInUse)
	case err != nil:
		return err
	}
	err = stillNamed(l.fsys, l.f, l.join(lockName))
	if errors.Is(err, ErrInUse) { // its owner has finished and removed it
		return &retryError{fmt.Errorf("%s was removed or replaced before it was locked", l.join(lockName))}
	}
	return err
}

// isOurs returns an error unless path is a directory that holds only what lock
// directories hold, and that, as far as the file system shows, no other user can
// have created or can write to.
func isOurs(fsys FS, path string) error {
	info, err := fsys.Lstat(path)
	if err != nil {
		return retryIfGone(err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is %w: it is not a directory; move it away", path, errNotOurs)
	}
	parent, err := fsys.Lstat(filepath.Dir(path))
	if err != nil {
		return retryIfGone(err)
	}
	if other, err := ofOtherUser(fsys, path, parent, info); err != nil {
		return retryIfGone(err)
	} else if other {
		return fmt.Errorf("%s is %w: another user can write to it; move it away", path, errNotOurs)
	}
	entries, err := fsys.ReadDir(path)
	if err != nil {
		return retryIfGone(err)
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == lockName, name == treeName, name == intentName, strings.HasPrefix(name, trashPrefix):
		default:
			return fmt.Errorf("%s is %w: it holds %q; move it away", path, errNotOurs, name)
		}
	}
	return nil
}

// recover empties the lock directory of a killed call. It removes a directory that
// the call published early, if dir is not published and the early directory is as
// the call left it.
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

// release removes the lock file, and the directory unless something is left in it.
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

// removeLockless removes the directory. Other calls must create a lock file in it
// to find out that there are no locks, and may do so meanwhile.
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

// trash moves name, a published directory, into the lock directory in one step, and
// then removes it. It does not need the lock.
func (l *lockDir) trash(name string) error {
	bin := l.join(trashPrefix + randomName())
	err := l.moveIn(name, bin)
	if err == nil {
		// Before removing it: after a power cut no half of it may be visible. If
		// this fails, the directory stays for the next call.
		err = l.fsys.SyncDir(filepath.Dir(name))
	}
	if err == nil {
		err = removeAll(l.fsys, bin)
	}
	return err
}

// moveIn renames name to bin in the lock directory. It creates the lock directory
// again if the lock is released already.
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
