package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

func renameNoReplace(oldpath, newpath string) error {
	err := retryEINTR(func() error {
		return unix.Renameat2(unix.AT_FDCWD, oldpath, unix.AT_FDCWD, newpath, unix.RENAME_NOREPLACE)
	})
	switch {
	case err == nil:
		return nil
	case isUnavailable(err):
		return errors.ErrUnsupported
	}
	return &os.LinkError{Op: "renameat2", Old: oldpath, New: newpath, Err: err}
}

// chmodNoFollow does what the fchmodat of the C library does on a kernel, up to
// 6.5, that cannot do it without following symbolic links.
func chmodNoFollow(name string, mode uint32) error {
	err := unix.Fchmodat(unix.AT_FDCWD, name, mode, unix.AT_SYMLINK_NOFOLLOW)
	if err != unix.EOPNOTSUPP && err != unix.EPERM { // EPERM may come from a sandbox
		return err
	}
	fd, err := unix.Open(name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode)
}

func freeSpace(name string) (int64, error) {
	var st unix.Statfs_t
	err := retryEINTR(func() error { return unix.Statfs(name, &st) })
	if isUnavailable(err) {
		return 0, errors.ErrUnsupported
	}
	if err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: name, Err: err}
	}
	if st.Blocks == 0 { // from FUSE, if it is not known
		return 0, errors.ErrUnsupported
	}
	unit := st.Frsize
	if unit == 0 {
		unit = st.Bsize
	}
	blocks := st.Bavail
	if st.Type == unix.EXT4_SUPER_MAGIC && os.Geteuid() == 0 {
		blocks = st.Bfree // includes those reserved for root
	}
	return saturate(blocks, uint64(unit)), nil
}

func copyRange(dst *os.File, dstOff int64, src *os.File, srcOff, n int64) (int64, error) {
	n = min(n, 1<<30)
	var done int
	err := withFd(dst, func(dfd uintptr) error {
		return withFd(src, func(sfd uintptr) (err error) {
			done, err = unix.CopyFileRange(int(sfd), &srcOff, int(dfd), &dstOff, int(n), 0)
			return err
		})
	})
	switch {
	case err == nil:
		return int64(done), nil
	case isUnavailable(err), err == unix.EXDEV: // not between these two
		return 0, fmt.Errorf("copy_file_range: %w (%w)", errors.ErrUnsupported, err)
	}
	return 0, &os.LinkError{Op: "copy_file_range", Old: src.Name(), New: dst.Name(), Err: err}
}

func allocate(f *os.File, size int64) error {
	err := withFd(f, func(fd uintptr) error { return unix.Fallocate(int(fd), 0, 0, size) })
	switch {
	case err == nil:
		return nil
	case isUnavailable(err):
		return errors.ErrUnsupported
	}
	return &fs.PathError{Op: "fallocate", Path: f.Name(), Err: err}
}

func startWriteback(f *os.File, off, n int64) error {
	return syncRange(f, off, n, unix.SYNC_FILE_RANGE_WRITE)
}

func awaitWriteback(f *os.File, off, n int64) error {
	return syncRange(f, off, n,
		unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
}

func dropCache(f *os.File, off, n int64) {
	// This is advice: it is not an error if the kernel does not take it.
	_ = withFd(f, func(fd uintptr) error { return unix.Fadvise(int(fd), off, n, unix.FADV_DONTNEED) })
}

func syncRange(f *os.File, off, n int64, flags int) error {
	err := withFd(f, func(fd uintptr) error { return unix.SyncFileRange(int(fd), off, n, flags) })
	if err == nil || isUnavailable(err) || err == unix.ESPIPE { // not a file on a disk
		return nil
	}
	// It may be the error of an earlier write, which the kernel reports only once.
	return &fs.PathError{Op: "sync_file_range", Path: f.Name(), Err: err}
}

// isUnavailable reports whether a system call is unavailable: the kernel does not
// know it or its flags, a sandbox denies it, or this file system does not support
// it. Which errno that gives depends on all three.
func isUnavailable(err error) bool {
	switch err {
	case unix.ENOSYS, unix.EINVAL, unix.EOPNOTSUPP, unix.EPERM, unix.ENOLCK:
		return true
	}
	return false
}
