package durable

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// openFilesAreBusy is true: an open file can be neither renamed nor removed.
const openFilesAreBusy = true

// renameNoReplace leaves it to os.Rename, which never replaces a directory.
func renameNoReplace(_, _ string) error { return errors.ErrUnsupported }

func freeSpace(name string) (int64, error) {
	p, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return 0, err
	}
	var avail uint64
	if err := windows.GetDiskFreeSpaceEx(p, &avail, nil, nil); err != nil {
		return 0, &fs.PathError{Op: "GetDiskFreeSpaceEx", Path: name, Err: err}
	}
	return saturate(avail, 1), nil
}

// ignoreNoSync: see SyncDir.
func ignoreNoSync(err error) error { return err }

// SyncDir does nothing: Windows has no such call, and NTFS journals renames.
func (osFS) SyncDir(string) error { return nil }

func tryLock(f *os.File) error {
	const lockOffset = 1 << 30 // high half; locks are mandatory, so lock a byte that is never read
	err := withFd(f, func(fd uintptr) error {
		return windows.LockFileEx(windows.Handle(fd),
			windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
			0, 1, 0, &windows.Overlapped{OffsetHigh: lockOffset})
	})
	switch err {
	case nil:
		return nil
	case windows.ERROR_LOCK_VIOLATION, windows.ERROR_IO_PENDING:
		return ErrInUse
	}
	return &fs.PathError{Op: "LockFileEx", Path: f.Name(), Err: err}
}

// unlock does nothing: closing releases the lock, since new processes inherit no
// handle.
func unlock(*os.File) error { return nil }

// setFileMode and setDirMode: there is no umask.
func setFileMode(*os.File, fs.FileMode) error { return nil }

func setDirMode(string, fs.FileMode) error { return nil }

func retryEINTR(fn func() error) error { return fn() }

// ownsEither: there are no sticky directories.
func ownsEither(_, _ fs.FileInfo) bool { return true }

func sameDevice(_, _ fs.FileInfo) bool { return false }

// ofOtherUser does not check permissions on Windows.
func ofOtherUser(FS, string, fs.FileInfo, fs.FileInfo) (bool, error) { return false, nil }

func isNotLinkable(err error) bool { return errors.Is(err, windows.ERROR_TOO_MANY_LINKS) }
