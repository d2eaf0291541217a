// Package durabletest wraps a [durable.FS] for tests: it reports every operation,
// makes chosen ones fail, and simulates a kill of the process and a power cut.
package durabletest

import (
	"fmt"
	"io/fs"
	"os"
	"sync"

	"etcd.example/snapshot/internal/durable"
)

// Op is one operation on the file system.
type Op struct {
	// Kind is one of: create, open, mkdir, link, rename, publish
	// (RenameNoReplace), remove, readdir, lstat, readlink, evalsymlinks,
	// syncdir, freespace, copy, allocate, writeback, await, lock, unlock; and on an
	// open file: read, write, seek, stat, sync, truncate, close.
	Kind string
	Path string // of the file, or the one that is renamed, linked or copied from
	To   string // the new name, or the file that is copied to
	Size int64  // bytes asked for, where the operation has a size
}

// A Hook watches and steers the operations of an [FS].
type Hook interface {
	// Before returns the error that op is to fail with, or nil. An operation that
	// fails is not carried out, but a write writes half its bytes.
	Before(op Op) error
	// After gets the outcome, including an error of Before.
	After(op Op, err error)
}

// FS is a [durable.FS] with hooks.
type FS struct {
	inner  durable.FS
	hooks  []Hook
	noSync bool

	mu   sync.Mutex
	open map[*file]bool
}

var _ durable.FS = (*FS)(nil)

// Wrap returns inner with hooks. They are called in the order given; the first
// error of Before counts.
func Wrap(inner durable.FS, hooks ...Hook) *FS {
	return &FS{inner: inner, hooks: hooks, open: map[*file]bool{}}
}

// NoSync skips the system calls that sync, for speed. The hooks still see the
// operations. It returns f.
func (f *FS) NoSync() *FS {
	f.noSync = true
	return f
}

// CloseAll closes the files that are still open, as the end of a process does,
// and returns how many there were.
func (f *FS) CloseAll() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.open)
	for file := range f.open {
		_ = file.inner.Close() // what the kernel does at the end of a process
	}
	clear(f.open)
	return n
}

func (f *FS) do(op Op, call func() error) error {
	err := f.before(op)
	if err == nil {
		err = call()
	}
	f.after(op, err)
	return err
}

func (f *FS) before(op Op) error {
	for _, h := range f.hooks {
		if err := h.Before(op); err != nil {
			if _, ok := err.(killed); ok {
				f.CloseAll()
			}
			return err
		}
	}
	return nil
}

func (f *FS) after(op Op, err error) {
	for _, h := range f.hooks {
		h.After(op, err)
	}
}

func (f *FS) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	kind := "open"
	if flag&os.O_CREATE != 0 {
		kind = "create"
	}
	opened := &file{fs: f}
	err := f.do(Op{Kind: kind, Path: name}, func() (err error) {
		opened.inner, err = f.inner.OpenFile(name, flag, perm)
		return err
	})
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open[opened] = true
	return opened, nil
}

func (f *FS) Mkdir(name string, perm fs.FileMode) error {
	return f.do(Op{Kind: "mkdir", Path: name}, func() error { return f.inner.Mkdir(name, perm) })
}

func (f *FS) Link(oldname, newname string) error {
	return f.do(Op{Kind: "link", Path: oldname, To: newname}, func() error { return f.inner.Link(oldname, newname) })
}

func (f *FS) Rename(oldpath, newpath string) error {
	return f.do(Op{Kind: "rename", Path: oldpath, To: newpath}, func() error { return f.inner.Rename(oldpath, newpath) })
}

func (f *FS) RenameNoReplace(oldpath, newpath string) error {
	return f.do(Op{Kind: "publish", Path: oldpath, To: newpath}, func() error { return f.inner.RenameNoReplace(oldpath, newpath) })
}

func (f *FS) Remove(name string) error {
	return f.do(Op{Kind: "remove", Path: name}, func() error { return f.inner.Remove(name) })
}

func (f *FS) ReadDir(name string) (list []fs.DirEntry, err error) {
	err = f.do(Op{Kind: "readdir", Path: name}, func() (err error) {
		list, err = f.inner.ReadDir(name)
		return err
	})
	return list, err
}

func (f *FS) Lstat(name string) (info fs.FileInfo, err error) {
	err = f.do(Op{Kind: "lstat", Path: name}, func() (err error) {
		info, err = f.inner.Lstat(name)
		return err
	})
	return info, err
}

func (f *FS) Readlink(name string) (link string, err error) {
	err = f.do(Op{Kind: "readlink", Path: name}, func() (err error) {
		link, err = f.inner.Readlink(name)
		return err
	})
	return link, err
}

func (f *FS) EvalSymlinks(name string) (real string, err error) {
	err = f.do(Op{Kind: "evalsymlinks", Path: name}, func() (err error) {
		real, err = f.inner.EvalSymlinks(name)
		return err
	})
	return real, err
}

func (f *FS) SyncDir(name string) error {
	return f.do(Op{Kind: "syncdir", Path: name}, func() error {
		if f.noSync {
			_, err := f.inner.Lstat(name)
			return err
		}
		return f.inner.SyncDir(name)
	})
}

func (f *FS) FreeSpace(name string) (n int64, err error) {
	err = f.do(Op{Kind: "freespace", Path: name}, func() (err error) {
		n, err = f.inner.FreeSpace(name)
		return err
	})
	return n, err
}

func (f *FS) CopyRange(dst durable.File, dstOff int64, src durable.File, srcOff, n int64) (done int64, err error) {
	err = f.do(Op{Kind: "copy", Path: src.Name(), To: dst.Name(), Size: n}, func() (err error) {
		done, err = f.inner.CopyRange(unwrap(dst), dstOff, unwrap(src), srcOff, n)
		return err
	})
	return done, err
}

func (f *FS) Allocate(file durable.File, size int64) error {
	return f.do(Op{Kind: "allocate", Path: file.Name(), Size: size}, func() error { return f.inner.Allocate(unwrap(file), size) })
}

func (f *FS) StartWriteback(file durable.File, off, n int64) error {
	return f.do(Op{Kind: "writeback", Path: file.Name(), Size: n}, func() error { return f.inner.StartWriteback(unwrap(file), off, n) })
}

func (f *FS) AwaitWriteback(file durable.File, off, n int64) error {
	return f.do(Op{Kind: "await", Path: file.Name(), Size: n}, func() error { return f.inner.AwaitWriteback(unwrap(file), off, n) })
}

func (f *FS) DropCache(file durable.File, off, n int64) { f.inner.DropCache(unwrap(file), off, n) }

func (f *FS) TryLock(file durable.File) error {
	return f.do(Op{Kind: "lock", Path: file.Name()}, func() error { return f.inner.TryLock(unwrap(file)) })
}

func (f *FS) Unlock(file durable.File) error {
	return f.do(Op{Kind: "unlock", Path: file.Name()}, func() error { return f.inner.Unlock(unwrap(file)) })
}

func unwrap(f durable.File) durable.File {
	if f, ok := f.(*file); ok {
		return f.inner
	}
	return f
}

// file is an open file of an FS.
type file struct {
	fs    *FS
	inner durable.File
}

func (f *file) op(kind string, size int) Op {
	return Op{Kind: kind, Path: f.Name(), Size: int64(size)}
}

func (f *file) Name() string { return f.inner.Name() }

func (f *file) Read(p []byte) (n int, err error) {
	err = f.fs.do(f.op("read", len(p)), func() (err error) {
		n, err = f.inner.Read(p)
		return err
	})
	return n, err
}

func (f *file) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.fs.do(f.op("read", len(p)), func() (err error) {
		n, err = f.inner.ReadAt(p, off)
		return err
	})
	return n, err
}

func (f *file) Write(p []byte) (int, error) { return f.write(p, f.inner.Write) }

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	return f.write(p, func(p []byte) (int, error) { return f.inner.WriteAt(p, off) })
}

// write writes half of p if a hook makes it fail.
func (f *file) write(p []byte, call func([]byte) (int, error)) (n int, err error) {
	op := f.op("write", len(p))
	var fault error
	for _, h := range f.fs.hooks {
		if fault = h.Before(op); fault != nil {
			p = p[:len(p)/2]
			break
		}
	}
	n, err = call(p)
	if fault != nil {
		err = fault
	}
	if _, ok := fault.(killed); ok {
		f.fs.CloseAll()
	}
	f.fs.after(op, err)
	if err == ErrShortWrite {
		err = nil
	}
	return n, err
}

func (f *file) Seek(offset int64, whence int) (at int64, err error) {
	err = f.fs.do(f.op("seek", 0), func() (err error) {
		at, err = f.inner.Seek(offset, whence)
		return err
	})
	return at, err
}

func (f *file) Stat() (info fs.FileInfo, err error) {
	err = f.fs.do(f.op("stat", 0), func() (err error) {
		info, err = f.inner.Stat()
		return err
	})
	return info, err
}

func (f *file) Sync() error {
	return f.fs.do(f.op("sync", 0), func() error {
		if f.fs.noSync {
			_, err := f.inner.Stat()
			return err
		}
		return f.inner.Sync()
	})
}

func (f *file) Truncate(size int64) error {
	return f.fs.do(f.op("truncate", int(size)), func() error { return f.inner.Truncate(size) })
}

// Close closes the file even if a hook makes that fail, as the system does.
func (f *file) Close() error {
	f.fs.mu.Lock()
	wasOpen := f.fs.open[f]
	delete(f.fs.open, f)
	f.fs.mu.Unlock()
	op := f.op("close", 0)
	err := f.fs.before(op)
	if wasOpen {
		if cerr := f.inner.Close(); err == nil {
			err = cerr
		}
	} else if err == nil {
		err = fmt.Errorf("close %s: %w", f.Name(), fs.ErrClosed)
	}
	f.fs.after(op, err)
	return err
}
