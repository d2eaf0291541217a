package boltfile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

const openNonblock = 0

// lockShared locks the byte at the end of the offset range, as bbolt does.
func lockShared(f *os.File) error {
	var at windows.Overlapped
	at.OffsetHigh, at.Offset = 1<<32-1, 1<<32-1
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &at)
	switch {
	case errors.Is(err, windows.ERROR_LOCK_VIOLATION):
		return ErrLocked
	case err != nil:
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}

// No other process gets a copy of the handle.
func unlock(*os.File) error { return nil }
