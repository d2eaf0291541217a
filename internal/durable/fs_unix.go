//go:build unix

package durable

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// openFilesAreBusy: a file can be renamed and removed while it is open.
const openFilesAreBusy = false

func (osFS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		err = nil // this file system cannot sync a directory
	}
	return errors.Join(err, d.Close())
}

func retryEINTR(fn func() error) error {
	for {
		if err := fn(); err != unix.EINTR {
			return err
		}
	}
}

func isTooManyLinks(err error) bool { return errors.Is(err, unix.EMLINK) }
