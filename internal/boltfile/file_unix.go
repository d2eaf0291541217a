//go:build unix

package boltfile

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"etcd.example/snapshot/internal/flock"
)

// A fifo must not be waited for.
const openNonblock = unix.O_NONBLOCK

// lockShared does without a lock where there are none: no etcd can hold one
// either, and a change under the reader is found as corruption at worst.
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
