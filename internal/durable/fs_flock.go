//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package durable

import (
	"errors"
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
