package durable

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"math/bits"
	"os"
	"path/filepath"
)

// File is an open file. [*os.File] is one.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.WriterAt
	io.Seeker
	io.Closer
	Name() string
	Stat() (fs.FileInfo, error)
	Sync() error
	Truncate(size int64) error
}

// FS is every file operation that staging and copying perform, so that tests
// can record them and make them fail. Methods without a comment do what the
// function of the same name in package os does. Implementations are safe for
// concurrent use.
type FS interface {
	// OpenFile is [os.OpenFile], except that a file created with os.O_CREATE has
	// exactly the permissions perm, whatever the umask, if the file system
	// stores permissions.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)

	// Mkdir is [os.Mkdir], with exactly the permissions perm in the same way.
	Mkdir(name string, perm fs.FileMode) error

	Link(oldname, newname string) error
	Rename(oldpath, newpath string) error
	Remove(name string) error
	ReadDir(name string) ([]fs.DirEntry, error)
	Lstat(name string) (fs.FileInfo, error)
	Readlink(name string) (string, error)

	// EvalSymlinks is [filepath.EvalSymlinks].
	EvalSymlinks(name string) (string, error)

	// RenameNoReplace renames a directory, and fails with fs.ErrExist when
	// newpath exists, even as an empty directory. On Linux and macOS the check
	// and the rename are one step if the file system supports it.
	RenameNoReplace(oldpath, newpath string) error

	// SyncDir makes the entries of a directory durable. It does nothing if the
	// file system cannot sync directories.
	SyncDir(name string) error

	// FreeSpace returns the number of bytes that this user may still write on
	// the file system of name or, if that does not exist, of its nearest
	// existing ancestor. The error is errors.ErrUnsupported if it is not known.
	FreeSpace(name string) (int64, error)

	// CopyRange lets the kernel copy n bytes between files of this FS, without
	// moving their offsets. It returns how many bytes it copied, which may be
	// fewer; 0 and nil mean the end of src, or a file system that cannot do
	// it. An error that matches errors.ErrUnsupported means that the caller
	// has to read and write instead.
	CopyRange(dst File, dstOff int64, src File, srcOff, n int64) (int64, error)

	// Allocate grows an empty file to size bytes of zeros and reserves space
	// for them if the file system can.
	Allocate(f File, size int64) error

	// StartWriteback asks the kernel to begin writing a range of bytes to the
	// disk, and does not wait. It promises nothing: only Sync does.
	StartWriteback(f File, off, n int64) error

	// AwaitWriteback waits until the kernel has written a range of bytes, if the
	// kernel offers that. It promises nothing either.
	AwaitWriteback(f File, off, n int64) error

	// DropCache removes a range of bytes from the page cache, if they are written
	// back and the kernel takes the advice.
	DropCache(f File, off, n int64)

	// TryLock takes the exclusive lock of an open file, held until it is closed.
	// It returns ErrInUse at once if this process or another has locked the file,
	// and errors.ErrUnsupported if there are no locks.
	TryLock(f File) error

	// Unlock releases the lock. Closing the file does too, but not at once while
	// a process that is just being started has a copy of the descriptor.
	Unlock(f File) error
}

// OS is the file system of the operating system. It repeats calls that a signal
// interrupts.
var OS FS = osFS{}

type osFS struct{}

func (osFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err // not a nil *os.File in an interface
	}
	if flag&os.O_CREATE == 0 {
		return f, nil
	}
	if err := setFileMode(f, perm); err != nil {
		err = errors.Join(err, f.Close())
		if flag&os.O_EXCL != 0 {
			err = errors.Join(err, os.Remove(name))
		}
		return nil, err
	}
	return f, nil
}

func (osFS) Mkdir(name string, perm fs.FileMode) error {
	err := os.Mkdir(name, perm)
	if err != nil {
		return err
	}
	if err := setDirMode(name, perm); err != nil {
		return errors.Join(err, ignoreNotExist(os.Remove(name)))
	}
	return nil
}

func (osFS) Link(oldname, newname string) error         { return os.Link(oldname, newname) }
func (osFS) Rename(oldpath, newpath string) error       { return os.Rename(oldpath, newpath) }
func (osFS) Remove(name string) error                   { return os.Remove(name) }
func (osFS) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(name) }
func (osFS) Lstat(name string) (fs.FileInfo, error)     { return os.Lstat(name) }
func (osFS) Readlink(name string) (string, error)       { return os.Readlink(name) }
func (osFS) EvalSymlinks(name string) (string, error)   { return filepath.EvalSymlinks(name) }

func (osFS) RenameNoReplace(oldpath, newpath string) error {
	err := renameNoReplace(oldpath, newpath)
	if errors.Is(err, errors.ErrUnsupported) {
		err = renameIfAbsent(oldpath, newpath)
	}
	return err
}

// renameIfAbsent is RenameNoReplace in two steps.
func renameIfAbsent(oldpath, newpath string) error {
	_, err := os.Lstat(newpath)
	if err == nil {
		return &os.LinkError{Op: "rename", Old: oldpath, New: newpath, Err: fs.ErrExist}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(oldpath, newpath)
}

func (osFS) FreeSpace(name string) (int64, error) {
	name, err := filepath.Abs(name)
	if err != nil {
		return 0, err
	}
	for {
		n, err := freeSpace(name)
		parent := filepath.Dir(name)
		if err == nil || parent == name || !errors.Is(err, fs.ErrNotExist) {
			return n, err
		}
		name = parent
	}
}

// SameDevice reports whether two files or directories are on one file system. If
// that is not known, as on Windows, it returns false.
func SameDevice(fsys FS, a, b string) (bool, error) {
	infoA, err := fsys.Lstat(a)
	if err != nil {
		return false, err
	}
	infoB, err := fsys.Lstat(b)
	if err != nil {
		return false, err
	}
	return sameDevice(infoA, infoB), nil
}

// saturate returns count times size, or the largest int64 if that is more.
func saturate(count, size uint64) int64 {
	hi, lo := bits.Mul64(count, size)
	if hi != 0 || lo > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(lo)
}

func (osFS) CopyRange(dst File, dstOff int64, src File, srcOff, n int64) (int64, error) {
	d, dok := dst.(*os.File)
	s, sok := src.(*os.File)
	if !dok || !sok {
		return 0, errors.ErrUnsupported
	}
	return copyRange(d, dstOff, s, srcOff, n)
}

func (osFS) Allocate(f File, size int64) error {
	if of, ok := f.(*os.File); ok {
		if err := allocate(of, size); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	return f.Truncate(size)
}

func (osFS) StartWriteback(f File, off, n int64) error {
	if of, ok := f.(*os.File); ok {
		return startWriteback(of, off, n)
	}
	return nil
}

func (osFS) AwaitWriteback(f File, off, n int64) error {
	if of, ok := f.(*os.File); ok {
		return awaitWriteback(of, off, n)
	}
	return nil
}

func (osFS) DropCache(f File, off, n int64) {
	if of, ok := f.(*os.File); ok {
		dropCache(of, off, n)
	}
}

func (osFS) TryLock(f File) error {
	if of, ok := f.(*os.File); ok {
		return tryLock(of)
	}
	return errors.ErrUnsupported
}

func (osFS) Unlock(f File) error {
	if of, ok := f.(*os.File); ok {
		return unlock(of)
	}
	return nil
}

// withFd calls fn with the descriptor of f, again if a signal interrupts it.
func withFd(f *os.File, fn func(fd uintptr) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := conn.Control(func(fd uintptr) {
		ferr = retryEINTR(func() error { return fn(fd) })
	}); err != nil {
		return err
	}
	return ferr
}
