package snaptest_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

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
	e := snaptest.Start(t, snaptest.WithTLS(true))
	_, err := e.Client().Put(ctx, "a", "1")
	require.NoError(t, err)

	cfg := e.ClientConfig()
	cfg.TLS = e.TLSConfig(false)
	c, err := clientv3.New(cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	short, cancelShort := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancelShort()
	_, err = c.Get(short, "a")
	require.Error(t, err, "a client without certificate was served")
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
}
