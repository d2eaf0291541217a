//go:build unix

package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// openFilesAreBusy is false: an open file can be renamed and removed.
const openFilesAreBusy = false

func (osFS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(ignoreNoSync(d.Sync()), d.Close())
}

// ignoreNoSync drops the error of a file system that cannot sync a directory.
func ignoreNoSync(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// setFileMode gives a file that was just created the permissions that the umask
// withheld.
func setFileMode(f *os.File, perm fs.FileMode) error {
	info, err := f.Stat()
	if err != nil || info.Mode().Perm() == perm {
		return err
	}
	return ignoreNoModes(f.Chmod(perm))
}

// setDirMode is setFileMode for a directory, which need not be readable.
func setDirMode(name string, perm fs.FileMode) error {
	info, err := os.Lstat(name)
	if err != nil || !info.IsDir() || info.Mode().Perm() == perm {
		return err
	}
	mode := uint32(perm)
	if info.Mode()&fs.ModeSetgid != 0 { // inherited from the parent
		mode |= unix.S_ISGID
	}
	err = retryEINTR(func() error { return chmodNoFollow(name, mode) })
	if err = ignoreNoModes(err); err != nil {
		return &fs.PathError{Op: "chmod", Path: name, Err: err}
	}
	return nil
}

// ignoreNoModes drops the error of a file system that does not store permissions,
// or not these.
func ignoreNoModes(err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

func retryEINTR(fn func() error) error {
	for {
		if err := fn(); err != unix.EINTR {
			return err
		}
	}
}

// ownsEither reports whether this process owns a or b, or is root: it may then
// remove file b in the sticky directory a.
func ownsEither(a, b fs.FileInfo) bool {
	self := os.Geteuid()
	return self == 0 || owner(a) == self || owner(b) == self
}

// others are the permission bits with which others than the owner may write.
const others = 0o022

// ofOtherUser reports whether another user may have created the directory at path,
// and could change what is in it: others can write to parent, and the directory is
// not like one that this process creates.
func ofOtherUser(fsys FS, path string, parent, dir fs.FileInfo) (bool, error) {
	switch {
	case parent.Mode()&others == 0:
		return false, nil
	case !sameDevice(parent, dir): // it is a mount point
		return true, nil
	case owner(dir) == os.Geteuid() && dir.Mode()&others == 0:
		return false, nil
	}
	// Unless every directory looks like that here.
	own, err := probe(fsys, path)
	if errors.Is(err, fs.ErrPermission) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	keepsModes := own.Mode().Perm()&^probePerm == 0
	return owner(dir) != owner(own) || keepsModes && dir.Mode()&others != 0, nil
}

// probePerm are permissions that few files have, and none on a file system
// without modes.
const probePerm = 0o200

// probe creates a file in dir, removes it, and returns its FileInfo. Others who can
// write to dir may rename or replace the file, but cannot change what its
// descriptor shows. Its name is one that recover removes.
func probe(fsys FS, dir string) (info fs.FileInfo, err error) {
	name := filepath.Join(dir, trashPrefix+randomName())
	f, err := fsys.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, probePerm)
	if err != nil {
		return nil, err
	}
	defer func() {
		rerr := ignoreNotExist(fsys.Remove(name))
		if rerr != nil { // nothing else would try again before the next call
			rerr = errors.Join(rerr, ignoreNotExist(fsys.Remove(name)))
		}
		err = errors.Join(err, rerr, f.Close())
	}()
	return f.Stat()
}

// owner returns the user id of the owner, or that of this process if the owner is
// not known.
func owner(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return os.Geteuid()
}

func sameDevice(a, b fs.FileInfo) bool {
	sa, aok := a.Sys().(*syscall.Stat_t)
	sb, bok := b.Sys().(*syscall.Stat_t)
	return aok && bok && sa.Dev == sb.Dev
}

// isNotLinkable reports whether link(2) refuses a second name for this file: it has
// too many, it belongs to another XFS project than the directory, or the file
// system does not support it.
func isNotLinkable(err error) bool {
	return slices.ContainsFunc([]error{unix.EMLINK, unix.EXDEV, unix.EINVAL, unix.ENOLCK}, func(errno error) bool {
		return errors.Is(err, errno)
	})
}
