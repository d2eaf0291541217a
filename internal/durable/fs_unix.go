//go:build unix

package durable

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

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

// ownsEither says whether this process may remove what a sticky directory keeps
// for the owners of the two files.
func ownsEither(a, b fs.FileInfo) bool {
	self := os.Geteuid()
	return self == 0 || owner(a) == self || owner(b) == self
}

// foreign says whether a directory found in parent may be another user's doing,
// who could change what is in it: others can write to parent, and it is not this
// process's own.
func foreign(parent, dir fs.FileInfo) bool {
	const others = 0o022
	return parent.Mode()&others != 0 && (owner(dir) != os.Geteuid() || dir.Mode()&others != 0)
}

// owner is the user whose file it is, or this one where that is not told.
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

// isNotLinkable says whether link(2) wants no second name for this file: it has
// too many, or it belongs to another project of XFS than the directory.
func isNotLinkable(err error) bool { return errors.Is(err, unix.EMLINK) || errors.Is(err, unix.EXDEV) }
