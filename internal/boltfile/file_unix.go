//go:build unix && !solaris && !aix

package boltfile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A fifo must not be waited for.
const openNonblock = unix.O_NONBLOCK

func lockShared(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EINTR):
		return lockShared(f)
	case errors.Is(err, unix.EWOULDBLOCK):
		return ErrLocked
	case errors.Is(err, unix.ENOLCK), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOSYS):
		return nil // a file system without locks: no etcd can hold one either
	case err != nil:
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}
