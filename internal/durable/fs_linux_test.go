package durable_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"etcd.example/snapshot/internal/durable"
)

// procfs answers EINVAL, as file systems do that know no fsync of directories.
func TestSyncDirWithoutSync(t *testing.T) {
	require.NoError(t, durable.OS.SyncDir("/proc/self"))
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
