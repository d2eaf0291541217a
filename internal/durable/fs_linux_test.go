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
)

// procfs answers EINVAL, as file systems do that know no fsync of directories.
func TestSyncDirWithoutSync(t *testing.T) {
	require.NoError(t, durable.OS.SyncDir("/proc/self"))
}

// What was dropped is on the disk and has to be read from there.
func TestDropCache(t *testing.T) {
	t.Setenv("TMPDIR", diskDir)
	name := filepath.Join(t.TempDir(), "f")
	const half = 512 << 10
	f := create(t, name, strings.Repeat("x", half))
	_, err := f.WriteAt(bytes.Repeat([]byte("x"), half), half) // a write of its own: the kernel may keep each in one piece
	require.NoError(t, err)
	in := func(off int64) bool {
		const nowait = 0x8 // RWF_NOWAIT of preadv2(2): fail instead of waiting for the disk
		n, _ := unix.Preadv2(int(f.(*os.File).Fd()), [][]byte{make([]byte, 1)}, off, nowait)
		return n == 1
	}
	require.True(t, in(0))
	require.NoError(t, durable.OS.StartWriteback(f, 0, 2*half))
	require.NoError(t, durable.OS.AwaitWriteback(f, 0, 2*half))
	durable.OS.DropCache(f, 0, half)
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(name, &st))
	if st.Type == unix.TMPFS_MAGIC {
		t.Skip("temporary files are in memory here, there is no disk to write to")
	}
	require.False(t, in(0), "still in the page cache")
	require.True(t, in(2*half-1), "the rest was not to be dropped")
	got, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("x", 2*half), string(got))
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
