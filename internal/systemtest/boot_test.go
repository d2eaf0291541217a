package systemtest_test

// Save, Verify and Restore together: etcd boots from what was restored and serves
// what it served before, alone and as a cluster of three. In every run; with
// -short only alone.

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// lease is the number of seconds of the lease in fillEtcd.
const lease = 3600

// fillEtcd writes what a restored etcd must still serve.
func fillEtcd(tb testing.TB, cli *clientv3.Client) (leaseID clientv3.LeaseID) {
	tb.Helper()
	ctx := tb.Context()
	granted, err := cli.Grant(ctx, lease)
	require.NoError(tb, err)
	for i := range 50 {
		_, err := cli.Put(ctx, fmt.Sprint("key", i%20), fmt.Sprint("value", i), clientv3.WithLease(granted.ID))
		require.NoError(tb, err)
	}
	_, err = cli.Delete(ctx, "key7")
	require.NoError(tb, err)
	_, err = cli.Put(ctx, "large", strings.Repeat("x", 100_000))
	require.NoError(tb, err)
	_, err = cli.RoleAdd(ctx, "reader")
	require.NoError(tb, err)
	_, err = cli.RoleGrantPermission(ctx, "reader", "key", "kez", clientv3.PermissionType(clientv3.PermRead))
	require.NoError(tb, err)
	_, err = cli.UserAdd(ctx, "alice", "secret")
	require.NoError(tb, err)
	_, err = cli.UserGrantRole(ctx, "alice", "reader")
	require.NoError(tb, err)
	return granted.ID
}

// requireSame compares what two etcds serve.
func requireSame(tb testing.TB, want *clientv3.GetResponse, leaseID clientv3.LeaseID, cli *clientv3.Client) {
	tb.Helper()
	ctx := tb.Context()
	got, err := cli.Get(ctx, "", clientv3.WithPrefix())
	require.NoError(tb, err)
	require.Equal(tb, len(want.Kvs), len(got.Kvs))
	for i := range want.Kvs {
		require.Equal(tb, want.Kvs[i].String(), got.Kvs[i].String())
	}
	require.Equal(tb, want.Header.Revision, got.Header.Revision)
	ttl, err := cli.TimeToLive(ctx, leaseID, clientv3.WithAttachedKeys())
	require.NoError(tb, err)
	require.Equal(tb, int64(lease), ttl.GrantedTTL)
	require.Greater(tb, ttl.TTL, int64(0))
	require.Len(tb, ttl.Keys, 19)
	role, err := cli.RoleGet(ctx, "reader")
	require.NoError(tb, err)
	require.Len(tb, role.Perm, 1)
	user, err := cli.UserGet(ctx, "alice")
	require.NoError(tb, err)
	require.Equal(tb, []string{"reader"}, user.Roles)
}

// The whole mission: a live member, a snapshot, a directory that a real etcd
// boots from, alone and as a cluster of three.
func TestSaveStatusRestoreBoot(t *testing.T) {
	origin := snaptest.Start(t)
	leaseID := fillEtcd(t, origin.Client())
	want, err := origin.Client().Get(t.Context(), "", clientv3.WithPrefix())
	require.NoError(t, err)

	m := snapshot.New()
	dir := t.TempDir()
	path := filepath.Join(dir, "snap.db")
	require.NoError(t, m.Save(t.Context(), origin.ClientConfig(), path))
	st, err := m.Verify(t.Context(), path)
	require.NoError(t, err)
	require.Equal(t, want.Header.Revision, st.Revision)
	require.Equal(t, len(want.Kvs), st.TotalKey)
	origin.Stop()

	t.Run("one", func(t *testing.T) {
		urls := snaptest.FreePeerURLs(t, 1)
		cfg := snapshot.RestoreConfig{SnapshotPath: path, Name: "one", OutputDataDir: filepath.Join(dir, "one"),
			OutputWALDir: filepath.Join(dir, "one-wal"), PeerURLs: urls, InitialCluster: "one=" + urls[0], InitialMmapSize: 64 << 20}
		require.NoError(t, m.Restore(cfg))
		restored := snaptest.Start(t, snaptest.From(cfg.OutputDataDir, cfg.OutputWALDir), snaptest.With(func(c *snaptest.Config) {
			c.Name, c.PeerURL, c.InitialCluster = cfg.Name, urls[0], cfg.InitialCluster
		}))
		requireSame(t, want, leaseID, restored.Client())
		_, err := restored.Client().Put(t.Context(), "life", "goes on")
		require.NoError(t, err)
	})
	t.Run("three", func(t *testing.T) {
		short.Skip(t, "boots a cluster of three")
		urls := snaptest.FreePeerURLs(t, 3)
		var initial []string
		for i, u := range urls {
			initial = append(initial, fmt.Sprintf("m%d=%s", i, u))
		}
		var members []snaptest.Member
		for i, u := range urls {
			cfg := snapshot.RestoreConfig{SnapshotPath: path, Name: fmt.Sprint("m", i), OutputDataDir: filepath.Join(dir, fmt.Sprint("m", i)),
				PeerURLs: []string{u}, InitialCluster: strings.Join(initial, ","), InitialClusterToken: "restored"}
			require.NoError(t, m.Restore(cfg))
			members = append(members, snaptest.Member{Name: cfg.Name, PeerURL: u, DataDir: cfg.OutputDataDir})
		}
		cluster := snaptest.StartCluster(t, members, snaptest.With(func(c *snaptest.Config) { c.Token = "restored" }))
		for _, e := range cluster {
			requireSame(t, want, leaseID, e.Client())
		}
		list, err := cluster[0].Client().MemberList(t.Context())
		require.NoError(t, err)
		require.Len(t, list.Members, 3)
		_, err = cluster[1].Client().Put(t.Context(), "life", "goes on")
		require.NoError(t, err)
	})
	t.Run("bumped", func(t *testing.T) {
		short.Skip(t, "boots another etcd")
		urls := snaptest.FreePeerURLs(t, 1)
		cfg := snapshot.RestoreConfig{SnapshotPath: path, Name: "b", OutputDataDir: filepath.Join(dir, "b"),
			PeerURLs: urls, InitialCluster: "b=" + urls[0], RevisionBump: 1000, MarkCompacted: true}
		require.NoError(t, m.Restore(cfg))
		restored := snaptest.Start(t, snaptest.From(cfg.OutputDataDir, ""), snaptest.With(func(c *snaptest.Config) {
			c.Name, c.PeerURL, c.InitialCluster = cfg.Name, urls[0], cfg.InitialCluster
		}))
		put, err := restored.Client().Put(t.Context(), "new", "1")
		require.NoError(t, err)
		require.Greater(t, put.Header.Revision, want.Header.Revision+1000)
		watch := <-restored.Client().Watch(t.Context(), "key", clientv3.WithPrefix(), clientv3.WithRev(want.Header.Revision))
		require.NotZero(t, watch.CompactRevision, "a watcher from before is told to start anew")
	})
}

// A member given by several URLs, and in another order than in InitialCluster.
func TestRestoreSeveralURLs(t *testing.T) {
	dir := t.TempDir()
	cfg := apitest.Config(snaptest.SmallFile(t), filepath.Join(dir, "data"))
	cfg.InitialCluster = "m0=http://127.0.0.1:1,m0=http://127.0.0.1:2"
	cfg.PeerURLs = []string{"http://127.0.0.1:2", "http://127.0.0.1:1"}
	for _, u := range cfg.PeerURLs {
		_, err := url.Parse(u)
		require.NoError(t, err)
	}
	require.NoError(t, snapshot.New().Restore(cfg))
}
