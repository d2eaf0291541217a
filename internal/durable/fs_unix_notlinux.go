//go:build unix && !linux

package durable

import "golang.org/x/sys/unix"

func chmodNoFollow(name string, mode uint32) error {
	return unix.Fchmodat(unix.AT_FDCWD, name, mode, unix.AT_SYMLINK_NOFOLLOW)
}
