//go:build !windows

package durable

import (
	"errors"
	"os"

	"etcd.example/snapshot/internal/flock"
)

func tryLock(f *os.File) error {
	err := flock.TryExclusive(f)
	if errors.Is(err, flock.ErrHeld) {
		return ErrInUse
	}
	return err
}

func unlock(f *os.File) error { return flock.Unlock(f) }
