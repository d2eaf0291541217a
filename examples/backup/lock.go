package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

// partial is the prefix of the directories in which saves work.
const partial = ".partial-"

// enter creates dir, locks it against other saves, and removes what killed ones
// left in it. The lock ends with leave or with the process. Its file stays: if
// it were removed, two saves could each lock a file of that name.
func enter(dir string) (leave func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := fileutil.TryLockFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, fmt.Errorf("another backup is being saved to %s", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	left, err := fs.Glob(os.DirFS(dir), partial+"*")
	for _, name := range left {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, name)))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("remove the leftovers of an earlier backup: %w", err), lock.Close())
	}
	return lock.Close, nil
}
