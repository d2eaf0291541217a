//go:build unix && !solaris && !aix

package flock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// TryExclusive takes the exclusive lock of f, or returns [ErrHeld] at once. If
// there are no locks it returns [errors.ErrUnsupported].
func TryExclusive(f *os.File) error { return call(f, unix.LOCK_EX|unix.LOCK_NB) }

// TryShared is TryExclusive for a shared lock, which excludes only exclusive ones.
func TryShared(f *os.File) error { return call(f, unix.LOCK_SH|unix.LOCK_NB) }

// Unlock releases the lock of f. If there are no locks it does nothing.
func Unlock(f *os.File) error {
	if err := call(f, unix.LOCK_UN); !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

func call(f *os.File, how int) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) {
		for err = unix.EINTR; err == unix.EINTR; {
			err = unix.Flock(int(fd), how)
		}
	})
	switch {
	case cerr != nil:
		return cerr
	case err == nil:
		return nil
	case err == unix.EWOULDBLOCK:
		return ErrHeld
	case isUnavailable(err):
		return fmt.Errorf("flock: %w (%w)", errors.ErrUnsupported, err)
	}
	return &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
}

// isUnavailable reports whether there are no locks: on this file system, on NFS
// without a lock daemon, in this kernel, or in a sandbox that denies them.
func isUnavailable(err error) bool {
	return err == unix.ENOLCK || err == unix.EPERM || err == unix.EINVAL || errors.Is(err, errors.ErrUnsupported)
}
