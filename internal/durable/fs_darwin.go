package durable

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

func renameNoReplace(oldpath, newpath string) error {
	err := retryEINTR(func() error { return unix.RenamexNp(oldpath, newpath, unix.RENAME_EXCL) })
	switch err {
	case nil:
		return nil
	case unix.ENOTSUP, unix.EINVAL:
		return errors.ErrUnsupported
	}
	return &os.LinkError{Op: "renamex_np", Old: oldpath, New: newpath, Err: err}
}

func freeSpace(name string) (int64, error) {
	var st unix.Statfs_t
	if err := retryEINTR(func() error { return unix.Statfs(name, &st) }); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: name, Err: err}
	}
	if st.Blocks == 0 { // from FUSE, if it is not known
		return 0, errors.ErrUnsupported
	}
	return saturate(st.Bavail, uint64(st.Bsize)), nil
}
