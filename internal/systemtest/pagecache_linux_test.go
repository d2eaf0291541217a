package systemtest_test

// Save does not fill the page cache, and Verify does. In every run on a disk.

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/pagecache"
	"etcd.example/snapshot/internal/snaptest/short"
)

// A Save leaves the end of a large snapshot in the page cache. A Verify that
// follows reads all of it into the cache.
func TestSaveSparesThePageCacheAndVerifyFillsIt(t *testing.T) {
	short.Skip(t, "writes 60 MB to disk")
	content := snaptest.NewDB().Large(60_000, 1000).Bytes(t, false)
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(content) })
	path := filepath.Join(t.TempDir(), snapshotName)
	require.NoError(t, snapshot.New().Save(t.Context(), s.ClientConfig(), path))
	left := cachedShare(t, path)
	_, err := snapshot.New().Verify(t.Context(), path)
	require.NoError(t, err)
	require.Greater(t, cachedShare(t, path), 0.5)

	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(path, &st))
	if st.Type == unix.OVERLAYFS_SUPER_MAGIC && left > 0.9 {
		t.Skip("sync_file_range(2) does nothing on overlayfs")
	}
	pagecache.MakeCold(t, path) // or skip
	require.Less(t, left, float64(32<<20)/float64(len(content)))
}
