//go:build linux

package systemtest_test

// Root may restore to the blocks that ext4 reserves for root. In every run that
// may mount ext4: go test ./internal/systemtest -run TestReservedBlocks

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// What ext4 reserves for root is room enough for root.
func TestReservedBlocks(t *testing.T) {
	if !withMounts(t) {
		return
	}
	root := t.TempDir()
	mountLoop(t, "ext4", []string{"mkfs.ext4", "-q", "-m", "50"}, root)
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(root, &st))
	f, err := os.Create(filepath.Join(root, "full"))
	require.NoError(t, err)
	require.NoError(t, unix.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*int64(st.Bsize)))
	require.NoError(t, f.Close())
	require.NoError(t, unix.Statfs(root, &st))
	require.Zero(t, st.Bavail)

	path := snaptest.NewDB().Put("a", "b").Write(t, filepath.Join(t.TempDir(), snapshotName), true)
	require.NoError(t, snapshot.New().Restore(apitest.Config(path, filepath.Join(root, "data"))))
}
