package durable_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
