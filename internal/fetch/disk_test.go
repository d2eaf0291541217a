package fetch_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// failingFS fails the operations named in fail.
type failingFS struct {
	durable.FS
	fail       map[string]error
	writebacks atomic.Int64 // bytes
	awaited    atomic.Int64 // bytes
	dropped    atomic.Int64 // bytes
	misplaced  atomic.Bool  // what was dropped was not awaited, or did not follow what was dropped before
}

type failingFile struct {
	durable.File
	fs *failingFS
}

func (f *failingFS) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	if err := f.fail["open"]; err != nil {
		return nil, err
	}
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &failingFile{File: file, fs: f}, nil
}

func (f *failingFS) TryLock(file durable.File) error {
	return f.FS.TryLock(file.(*failingFile).File)
}

func (f *failingFS) StartWriteback(file durable.File, off, n int64) error {
	if off != f.writebacks.Add(n)-n {
		return errors.New("write-back out of order")
	}
	return f.fail["write back"]
}

func (f *failingFS) AwaitWriteback(file durable.File, off, n int64) error {
	if off != f.awaited.Add(n)-n || off+n >= f.writebacks.Load() {
		return errors.New("waiting out of order")
	}
	return f.fail["await"]
}

func (f *failingFS) DropCache(file durable.File, off, n int64) {
	if off != f.dropped.Add(n)-n || off+n > f.awaited.Load() {
		f.misplaced.Store(true)
	}
}

func (f *failingFS) Rename(oldpath, newpath string) error {
	if err := f.fail["rename"]; err != nil {
		return err
	}
	return f.FS.Rename(oldpath, newpath)
}

func (f *failingFS) Remove(name string) error {
	return errors.Join(f.fail["remove"], f.FS.Remove(name))
}

func (f *failingFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fs.fail["write"]; err != nil {
		n, _ := f.File.WriteAt(p[:len(p)/2], off)
		return n, err
	}
	return f.File.WriteAt(p, off)
}

func (f *failingFile) Sync() error { return errors.Join(f.fs.fail["sync"], f.File.Sync()) }

func TestSaveToFailingDisk(t *testing.T) {
	db := snaptest.Opaque(17<<20 + 8192)
	for _, op := range []string{"open", "write", "write back", "await", "sync", "rename"} {
		t.Run(op, func(t *testing.T) {
			snaptest.NoLeaks(t)
			s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(db) })
			disk := &failingFS{FS: durable.OS, fail: map[string]error{op: syscall.EIO}}
			m := apitest.OnFS(disk, nil)
			_, err := apitest.SaveToPath(t.Context(), t, m, s.ClientConfig())
			require.ErrorIs(t, err, syscall.EIO)
			apitest.RequireNoOther(t, err, syscall.EIO)
		})
	}
}

func TestSaveSaysWhatItCouldNotCleanUp(t *testing.T) {
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendDB(snaptest.Opaque(4096)) })
	disk := &failingFS{FS: durable.OS, fail: map[string]error{"remove": syscall.EIO}}
	_, err := apitest.SaveToPath(t.Context(), t, apitest.OnFS(disk, nil), s.ClientConfig())
	require.ErrorIs(t, err, snapshot.ErrNoTrailer)
	require.ErrorIs(t, err, syscall.EIO)
}

// takenFS is a file system on which another call always has the lock.
type takenFS struct{ durable.FS }

func (takenFS) TryLock(durable.File) error { return durable.ErrInUse }

// A temporary file that other calls keep taking for a stale one is in use.
func TestSaveNeverGetsTheLock(t *testing.T) {
	dir := t.TempDir()
	err := apitest.OnFS(takenFS{apitest.QuickFS()}, nil).Save(t.Context(), clientv3.Config{Endpoints: []string{"127.0.0.1:1"}, Logger: zap.NewNop()}, filepath.Join(dir, "db"))
	require.ErrorIs(t, err, snapshot.ErrInUse)
	apitest.RequireNoOther(t, err, snapshot.ErrInUse)
	require.Empty(t, snaptest.TreeList(t, dir))
}

// While it saves, the disk is kept busy, and of what is on it only the end is
// left in the page cache.
func TestSaveStartsWritebackEarly(t *testing.T) {
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(snaptest.Opaque(26 << 20)) })
	disk := &failingFS{FS: durable.OS}
	_, err := apitest.SaveToPath(t.Context(), t, apitest.OnFS(disk, nil), s.ClientConfig())
	require.NoError(t, err)
	require.EqualValues(t, 24<<20, disk.writebacks.Load())
	require.EqualValues(t, 16<<20, disk.dropped.Load())
	require.False(t, disk.misplaced.Load())
}

func TestSaveFollowsLink(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "real.db"), filepath.Join(dir, "link.db")
	require.NoError(t, os.WriteFile(target, []byte(apitest.Before), 0o600))
	require.NoError(t, os.Symlink("real.db", link))
	db := snaptest.Opaque(8192)
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(db) })
	require.NoError(t, snapshot.New().Save(t.Context(), s.ClientConfig(), link))
	got, err := os.ReadFile(target)
	require.NoError(t, err)
	require.True(t, bytes.Equal(snaptest.WithTrailer(db), got))
	info, err := os.Lstat(link)
	require.NoError(t, err)
	require.Equal(t, fs.ModeSymlink, info.Mode().Type())
}
