package durable_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/snaptest/pagecache"
)

// procfs answers EINVAL, as file systems do that know no fsync of directories.
func TestSyncDirWithoutSync(t *testing.T) {
	require.NoError(t, durable.OS.SyncDir("/proc/self"))
}

// What was dropped is on the disk and has to be read from there.
func TestDropCache(t *testing.T) {
	t.Setenv("TMPDIR", diskDir)
	name := filepath.Join(t.TempDir(), "f")
	const drop, keep = 512 << 10, 256 << 10
	f := create(t, name, strings.Repeat("x", drop))
	_, err := f.WriteAt(bytes.Repeat([]byte("x"), keep), drop) // a write of its own: the kernel may keep each in one piece
	require.NoError(t, err)
	in := func() float64 { // mincore(2), since not every file system knows RWF_NOWAIT
		share, err := pagecache.Share(name)
		require.NoError(t, err)
		return share
	}
	require.Equal(t, 1.0, in())
	require.NoError(t, durable.OS.StartWriteback(f, 0, drop+keep))
	require.NoError(t, durable.OS.AwaitWriteback(f, 0, drop+keep))
	durable.OS.DropCache(f, 0, drop)
	left := in()
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(name, &st))
	if st.Type == unix.OVERLAYFS_SUPER_MAGIC && left > 0.4 {
		t.Skip("sync_file_range(2) does nothing on overlayfs")
	}
	if require.NoError(t, pagecache.Drop(name)); in() == 1 {
		t.Skip("temporary files are in memory here, there is no disk to write to")
	}
	require.InDelta(t, 1.0/3, left, 0.05, "want the first two thirds out of the page cache, and the rest in it")
	got, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("x", drop+keep), string(got))
}

func TestAwaitWritebackOfClosedFile(t *testing.T) {
	f := create(t, filepath.Join(t.TempDir(), "f"), "x")
	require.NoError(t, f.Close())
	require.ErrorContains(t, durable.OS.AwaitWriteback(f, 0, 1), "closed")
}

func TestRetryEINTR(t *testing.T) {
	calls := 0
	err := durable.RetryEINTR(func() error {
		if calls++; calls < 3 {
			return unix.EINTR
		}
		return unix.EIO
	})
	require.Equal(t, unix.EIO, err)
	require.Equal(t, 3, calls)
}

// procfs tells no number of blocks, as file systems in user space may.
func TestFreeSpaceUnknown(t *testing.T) {
	n, err := durable.OS.FreeSpace("/proc/self")
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.Zero(t, n)
}

// pagesOf asks cachestat(2) how many pages of a range of f are dirty and how many
// are on their way to the disk.
func pagesOf(t *testing.T, f durable.File, off, n int64) (dirty, writeback uint64) {
	t.Helper()
	const cachestat = 451 // on every architecture
	span := [2]uint64{uint64(off), uint64(n)}
	var stat [5]uint64
	_, _, errno := unix.Syscall6(cachestat, f.(*os.File).Fd(), uintptr(unsafe.Pointer(&span)), uintptr(unsafe.Pointer(&stat)), 0, 0, 0)
	if errno == unix.ENOSYS || errno == unix.EPERM || errno == unix.EOPNOTSUPP {
		t.Skipf("cachestat(2): %v", errno)
	}
	require.Zero(t, errno)
	return stat[1], stat[2]
}

// Write-back begins when it is asked for, of the range alone, and is over when it
// was waited for.
func TestWritebackOfARange(t *testing.T) {
	t.Setenv("TMPDIR", diskDir)
	const size, half = 512 << 10, 256 << 10
	page := uint64(os.Getpagesize())
	var f durable.File
	var dirty uint64
	for n := 0; n < 20 && dirty != size/page; n++ { // the kernel may begin by itself, as when much is written elsewhere
		f = create(t, filepath.Join(t.TempDir(), "f"), strings.Repeat("x", half))
		_, err := f.WriteAt(bytes.Repeat([]byte("x"), half), half) // a write of its own: the kernel may keep each in one piece
		require.NoError(t, err)
		var st unix.Statfs_t
		require.NoError(t, unix.Statfs(f.Name(), &st))
		switch st.Type {
		case unix.OVERLAYFS_SUPER_MAGIC:
			t.Skip("sync_file_range(2) does nothing on overlayfs")
		case unix.TMPFS_MAGIC:
			t.Skip("temporary files are in memory here, there is no disk to write to")
		}
		dirty, _ = pagesOf(t, f, 0, size)
	}
	if dirty != size/page {
		t.Skipf("%d of %d pages are dirty", dirty, size/page) // written through
	}
	require.NoError(t, durable.OS.StartWriteback(f, half, half))
	dirty, _ = pagesOf(t, f, half, half)
	require.Zero(t, dirty, "not begun")
	dirty, _ = pagesOf(t, f, 0, half)
	require.Equal(t, half/page, dirty, "not asked for")
	require.NoError(t, durable.OS.AwaitWriteback(f, 0, size))
	dirty, writeback := pagesOf(t, f, 0, size)
	require.Zero(t, dirty)
	require.Zero(t, writeback)
}

func TestSameDevice(t *testing.T) {
	dir, missing := t.TempDir(), filepath.Join(t.TempDir(), "missing")
	for _, c := range []struct {
		a, b string
		want bool
		err  error
	}{
		{dir, filepath.Dir(dir), true, nil},
		{dir, "/proc", false, nil},
		{"/proc", dir, false, nil},
		{dir, missing, false, fs.ErrNotExist},
		{missing, dir, false, fs.ErrNotExist},
	} {
		got, err := durable.SameDevice(durable.OS, c.a, c.b)
		require.ErrorIs(t, err, c.err, "%s %s", c.a, c.b)
		require.Equal(t, c.want, got, "%s %s", c.a, c.b)
	}
}

// What is no file has nothing to write back.
func TestWritebackOfAPipe(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, durable.OS.StartWriteback(w, 0, 10))
	require.NoError(t, durable.OS.AwaitWriteback(w, 0, 10))
	require.NoError(t, w.Close())
	require.NoError(t, r.Close())
}
