package boltfile

import (
	"errors"
	"fmt"
	"os"

	"etcd.example/snapshot/internal/fault"
)

// ErrLocked: the database is open for writing, in this process or another. It is
// a [fault.ErrInUse].
var ErrLocked = fmt.Errorf("%w: locked by a running etcd, or by another call that writes to it", fault.ErrInUse)

// ErrNotRegular: the path is not that of a regular file.
var ErrNotRegular = errors.New("not a regular file")

// OpenFile opens the file at path for reading, following symbolic links. It holds
// bbolt's shared lock until [CloseFile], so that no etcd opens the file meanwhile.
// If an etcd holds the file, the error is ErrLocked, at once; for a directory, a
// fifo or a device it is ErrNotRegular.
func OpenFile(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|openNonblock, 0)
	if err != nil {
		return nil, 0, err
	}
	size, err := checkFile(f)
	if err != nil {
		_ = f.Close() // only read from
		return nil, 0, err
	}
	return f, size, nil
}

func checkFile(f *os.File) (size int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.IsDir() {
		return 0, fmt.Errorf("%w but a directory: give the path of the snapshot file itself", ErrNotRegular)
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%w: %s", ErrNotRegular, info.Mode())
	}
	return info.Size(), lockShared(f)
}

// CloseFile closes a file that OpenFile has opened. It releases the lock first:
// closing does not release it while a process that is just being started has a
// copy of the descriptor.
func CloseFile(f *os.File) error { return errors.Join(unlock(f), f.Close()) }
