package differential_test

import (
	"path/filepath"
	"testing"
	"time"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
	peer "go.etcd.io/etcd/etcdutl/v3/snapshot"
)

// What MIGRATION.md says about a db file that another process holds: etcd's Restore
// copies it without a lock, its Status waits, and ours refuse it at once.
func TestFileInUse(t *testing.T) {
	path := churn(200).Write(t, filepath.Join(t.TempDir(), "db"), true)
	holder, err := bolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	held := true
	defer func() {
		if held {
			require.NoError(t, holder.Close())
		}
	}()
	cfg := restoreCase{members: 1}.configs(t, path)[0]
	cfg.SkipHashCheck = true // the holder may have changed it
	require.NoError(t, peer.NewV3(silent).Restore(peerConfig(t, cfg)))
	cfg.OutputDataDir = filepath.Join(t.TempDir(), "data")
	require.ErrorIs(t, snapshot.New().Restore(cfg), snapshot.ErrInUse)
	_, err = snapshot.New().Status(path)
	require.ErrorIs(t, err, snapshot.ErrInUse)

	answered := make(chan error, 1)
	go func() {
		_, err := peer.NewV3(silent).Status(path)
		answered <- err
	}()
	select {
	case err := <-answered:
		require.FailNow(t, "etcd's Status did not wait", "%v", err)
	case <-time.After(300 * time.Millisecond): // bbolt tries again every 50 ms
	}
	held = false
	require.NoError(t, holder.Close())
	require.NoError(t, <-answered)
}

// A damaged file that etcd restores if it does not check the checksum, and that ours
// refuses: it ends before its database does. Only free pages are missing.
func TestDamageThatEtcdRestores(t *testing.T) {
	path := churn(200).Write(t, filepath.Join(t.TempDir(), "db"), false)
	snaptest.SetMetas(t, path, func(m *snaptest.Meta) { m.HighWater += 3 })
	cfg := restoreCase{members: 1}.configs(t, path)[0]
	cfg.SkipHashCheck = true
	require.NoError(t, peer.NewV3(silent).Restore(peerConfig(t, cfg)))
	cfg.OutputDataDir = filepath.Join(t.TempDir(), "data")
	err := snapshot.New().Restore(cfg)
	require.ErrorIs(t, err, snapshot.ErrCorrupt)
	require.ErrorIs(t, err, snapshot.ErrTruncated)
}
