//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

func tryLock(f *os.File) error {
	err := withFd(f, func(fd uintptr) error {
		return unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB)
	})
	switch err {
	case nil:
		return nil
	case unix.EWOULDBLOCK:
		return ErrInUse
	case unix.ENOLCK: // NFS without a lock daemon
		return fmt.Errorf("flock: %w (%w)", errors.ErrUnsupported, err)
	}
	return &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
}

func unlock(f *os.File) error {
	err := withFd(f, func(fd uintptr) error { return unix.Flock(int(fd), unix.LOCK_UN) })
	if err == nil || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
}
