package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/snaptest/pagecache"
)

// needDisk skips a test of cold files if temporary files are in memory.
func needDisk(t *testing.T) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, make([]byte, 1<<20), 0o600))
	pagecache.MakeCold(t, path)
}

func TestPageCache(t *testing.T) {
	needDisk(t)
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte("x"), 5<<20+1), 0o600))
	share, err := cool(path)
	require.NoError(t, err)
	require.LessOrEqual(t, share, coldShare)

	f, err := os.Open(path)
	require.NoError(t, err)
	_, err = f.ReadAt(make([]byte, 1), 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	share, err = pagecache.Share(path)
	require.NoError(t, err)
	require.Positive(t, share)
	require.Less(t, share, 1.0)

	share, err = warm(path)
	require.NoError(t, err)
	require.Equal(t, 1.0, share)

	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	share, err = warm(empty)
	require.NoError(t, err)
	require.Equal(t, 1.0, share)

	for _, f := range []func(string) (float64, error){warm, cool, pagecache.Share} {
		_, err := f(filepath.Join(t.TempDir(), "missing"))
		require.ErrorIs(t, err, os.ErrNotExist)
	}
}

func TestProcessStatus(t *testing.T) {
	status := []byte("Name:\tx\nVmHWM:\t   2048 kB\nRssAnon:\t 12 kB\nThreads:\t3\n")
	n, err := statusField(status, "VmHWM")
	require.NoError(t, err)
	require.Equal(t, int64(2048*1024), n)
	for _, field := range []string{"Threads", "VmSwap", "Vm"} {
		_, err := statusField(status, field)
		require.Error(t, err, field)
	}
	rss, err := memory("self", "VmRSS")
	require.NoError(t, err)
	require.Greater(t, rss, int64(1<<20))
	_, err = memory("0", "VmRSS")
	require.Error(t, err)
}

func TestStolen(t *testing.T) {
	require.Equal(t, 1.23, stolenIn("cpu  1 2 3 4 5 6 7 123 0 0\ncpu0 9 9 9 9 9 9 9 9\n"))
	require.Zero(t, stolenIn("cpu 1 2 3"))
	require.Zero(t, stolenIn(""))
}

func TestMachine(t *testing.T) {
	m := describeMachine(t.TempDir())
	require.Positive(t, m.Cores)
	require.Positive(t, m.Memory)
	require.Contains(t, m.Kernel, "Linux ")
	require.NotContains(t, m.FileSystem, "unknown")
	require.Equal(t, "xfs", fileSystemName(0x58465342))
	require.Equal(t, "file system 0x1", fileSystemName(1))
}
