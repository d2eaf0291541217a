package snaptest_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"etcd.example/snapshot/internal/snaptest"
)

func TestStart(t *testing.T) {
	snaptest.NoLeaks(t)
	e := snaptest.Start(t)
	ctx := context.Background()
	_, err := e.Client().Put(ctx, "a", "1")
	require.NoError(t, err)
	got, err := e.Client().Get(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, "1", string(got.Kvs[0].Value))
	require.Equal(t, []string{e.Endpoint()}, e.ClientConfig().Endpoints)
	require.FileExists(t, filepath.Join(e.DataDir, "member", "snap", "db"))

	e.Stop()
	again := snaptest.Start(t, snaptest.From(e.DataDir, ""))
	got, err = again.Client().Get(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, "1", string(got.Kvs[0].Value))
}

func TestRunLeavesNothing(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	e, err := snaptest.Run(context.Background(), snaptest.Config{TLS: true})
	require.NoError(t, err)
	require.NotEmpty(t, snaptest.TreeList(t, tmp))
	e.Stop()
	require.Empty(t, snaptest.TreeList(t, tmp))

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = snaptest.Run(ctx, snaptest.Config{
		// A second member that never comes: no leader, hence never ready.
		PeerURL:        "http://127.0.0.1:0",
		InitialCluster: "default=http://127.0.0.1:0,other=http://127.0.0.1:1",
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, snaptest.TreeList(t, tmp))

	_, err = snaptest.Run(context.Background(), snaptest.Config{PeerURL: ":"})
	require.ErrorContains(t, err, "peer URL")
	require.Empty(t, snaptest.TreeList(t, tmp))
}

func TestStartTLS(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, mutual := range []bool{false, true} {
		e := snaptest.Start(t, snaptest.WithTLS(mutual))
		require.Contains(t, e.Endpoint(), "https://")
		_, err := e.Client().Put(ctx, "a", "1")
		require.NoError(t, err)

		cfg := e.ClientConfig()
		cfg.TLS = e.TLSConfig(!mutual)
		c, err := clientv3.New(cfg)
		require.NoError(t, err)
		short, cancelShort := context.WithCancel(ctx)
		if mutual { // or it would try for ever
			short, cancelShort = context.WithTimeout(ctx, 500*time.Millisecond)
		}
		_, err = c.Get(short, "a")
		require.Equal(t, mutual, err != nil, "without certificate where one is wanted, with where none is: %v", err)
		cancelShort()
		require.NoError(t, c.Close())
	}
}

func TestStartExplains(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, err := snaptest.Run(ctx, snaptest.Config{
		DataDir:        t.TempDir(),
		PeerURL:        "http://127.0.0.1:0",
		InitialCluster: "default=http://127.0.0.1:0,other=http://127.0.0.1:1",
	})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "etcd's last warnings:\n")

	_, err = snaptest.Run(context.Background(), snaptest.Config{InitialCluster: "other=http://127.0.0.1:1"})
	require.ErrorContains(t, err, "couldn't find local name")
}

func TestConfig(t *testing.T) {
	e := snaptest.Start(t, snaptest.With(func(c *snaptest.Config) {
		c.Name, c.Token, c.PeerURL = "m1", "token", "http://10.0.0.1:2380"
		c.SnapshotCount, c.QuotaBytes = 7, 1<<20
		c.WALDir = filepath.Join(t.TempDir(), "wal")
		c.Configure = func(ec *embed.Config) { ec.AuthTokenTTL = 9 }
	}))
	got := e.Server.Config()
	require.Equal(t, "m1", got.Name)
	require.Equal(t, "token", got.InitialClusterToken)
	require.EqualValues(t, 7, got.SnapshotCount)
	require.EqualValues(t, 1<<20, got.QuotaBackendBytes)
	require.EqualValues(t, 9, got.AuthTokenTTL)
	require.NotEmpty(t, snaptest.TreeList(t, got.WalDir))
	members, err := e.Client().MemberList(context.Background())
	require.NoError(t, err)
	require.Equal(t, []string{"http://10.0.0.1:2380"}, members.Members[0].PeerURLs)
	require.Equal(t, "http://10.0.0.1:2380", e.PeerURL)
	require.True(t, e.Leads())
}

func TestStartCluster(t *testing.T) {
	urls := snaptest.FreePeerURLs(t, 2)
	cluster := snaptest.StartCluster(t, []snaptest.Member{
		{Name: "m1", PeerURL: urls[0]}, {Name: "m2", PeerURL: urls[1]},
	})
	ctx := context.Background()
	_, err := cluster[0].Client().Put(ctx, "a", "1")
	require.NoError(t, err)
	got, err := cluster[1].Client().Get(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, "1", string(got.Kvs[0].Value))

	learner := snaptest.Join(t, cluster[0], "l1", true)
	got, err = learner.Client().Get(ctx, "a", clientv3.WithSerializable())
	require.NoError(t, err)
	require.Equal(t, "1", string(got.Kvs[0].Value))
	members, err := cluster[0].Client().MemberList(ctx)
	require.NoError(t, err)
	require.Len(t, members.Members, 3)
	for _, m := range members.Members {
		require.Equal(t, m.Name == "l1", m.IsLearner, m.Name)
	}
}

func TestRunClusterFails(t *testing.T) {
	snaptest.NoLeaks(t)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	cluster, err := snaptest.RunCluster(t.Context(), []snaptest.Member{
		{Name: "sound"}, {Name: "broken", DataDir: filepath.Join(file, "etcd")},
	})
	require.ErrorContains(t, err, "member broken: ")
	require.Nil(t, cluster)
}
