//go:build unix

package boltfile

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"etcd.example/snapshot/internal/flock"
)

// Opening a fifo must not block.
const openNonblock = unix.O_NONBLOCK

// lockShared takes no lock if the file system has none: no etcd can hold one
// either. At worst, a change during the read is reported as corruption.
func lockShared(f *os.File) error {
	err := flock.TryShared(f)
	switch {
	case errors.Is(err, flock.ErrHeld):
		return ErrLocked
	case errors.Is(err, errors.ErrUnsupported):
		return nil
	}
	return err
}

func unlock(f *os.File) error { return flock.Unlock(f) }
