package systemtest_test

// Lets a listing skip the holes of a file.

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// nextData is the first offset from off on that is not in a hole.
func nextData(f *os.File, off, size int64) (int64, error) {
	next, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, nil
	case errors.Is(err, unix.EINVAL): // this file system cannot tell
		return off, nil
	}
	return next, err
}
