package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

func renameNoReplace(oldpath, newpath string) error {
	err := retryEINTR(func() error {
		return unix.Renameat2(unix.AT_FDCWD, oldpath, unix.AT_FDCWD, newpath, unix.RENAME_NOREPLACE)
	})
	switch {
	case err == nil:
		return nil
	case isUnavailable(err), err == unix.EINVAL: // this file system, or an old kernel, does not know the flag
		return errors.ErrUnsupported
	}
	return &os.LinkError{Op: "renameat2", Old: oldpath, New: newpath, Err: err}
}

// chmodNoFollow is what the C library makes of fchmodat(2) where the kernel, up
// to 6.5, cannot leave symbolic links alone.
func chmodNoFollow(name string, mode uint32) error {
	err := unix.Fchmodat(unix.AT_FDCWD, name, mode, unix.AT_SYMLINK_NOFOLLOW)
	if err != unix.EOPNOTSUPP && err != unix.EPERM { // which a sandbox says as well
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
	if st.Blocks == 0 { // as from FUSE where nobody can tell
		return 0, errors.ErrUnsupported
	}
	unit := st.Frsize
	if unit == 0 {
		unit = st.Bsize
	}
	blocks := st.Bavail
	if st.Type == unix.EXT4_SUPER_MAGIC && os.Geteuid() == 0 {
		blocks = st.Bfree // with those that are reserved for root
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
	case isUnavailable(err), err == unix.EOPNOTSUPP, err == unix.EXDEV, err == unix.EINVAL:
		// Which of these says "not between these two" depends on the kernel
		// and the file system.
		return 0, fmt.Errorf("copy_file_range: %w (%w)", errors.ErrUnsupported, err)
	}
	return 0, &os.LinkError{Op: "copy_file_range", Old: src.Name(), New: dst.Name(), Err: err}
}

func allocate(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	err := withFd(f, func(fd uintptr) error { return unix.Fallocate(int(fd), 0, 0, size) })
	switch {
	case err == nil:
		return nil
	case isUnavailable(err), err == unix.EOPNOTSUPP:
		return errors.ErrUnsupported
	}
	return &fs.PathError{Op: "fallocate", Path: f.Name(), Err: err}
}

func startWriteback(f *os.File, off, n int64) error {
	return syncRange(f, off, n, unix.SYNC_FILE_RANGE_WRITE, unix.EINVAL, unix.ESPIPE)
}

func awaitWriteback(f *os.File, off, n int64) error {
	// Any other error may be that of a write, which is told only once.
	return syncRange(f, off, n,
		unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
}

func dropCache(f *os.File, off, n int64) {
	// An advice: that it is not taken is no error.
	_ = withFd(f, func(fd uintptr) error { return unix.Fadvise(int(fd), off, n, unix.FADV_DONTNEED) })
}

// syncRange takes the errors in refused, too, as the answer of a kernel or a
// file system that cannot do it.
func syncRange(f *os.File, off, n int64, flags int, refused ...error) error {
	err := withFd(f, func(fd uintptr) error { return unix.SyncFileRange(int(fd), off, n, flags) })
	if err == nil || isUnavailable(err) || slices.Contains(refused, err) {
		return nil
	}
	return &fs.PathError{Op: "sync_file_range", Path: f.Name(), Err: err}
}

// isUnavailable says whether the kernel lacks a system call, or a sandbox denies
// it.
func isUnavailable(err error) bool { return err == unix.ENOSYS || err == unix.EPERM }
