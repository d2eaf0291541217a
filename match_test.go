package snapshot_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
)

// A snapshot of one member matches all members of its cluster, after more writes and
// compactions too, and no member of another cluster.
func TestMatch(t *testing.T) {
	urls := snaptest.FreePeerURLs(t, 3)
	members := make([]snaptest.Member, len(urls))
	for i, url := range urls {
		members[i] = snaptest.Member{Name: string(rune('a' + i)), PeerURL: url}
	}
	cluster := snaptest.StartCluster(t, members)
	cfg := clientv3.Config{}
	for _, e := range cluster {
		cfg.Endpoints = append(cfg.Endpoints, e.Endpoint())
	}
	cli := cluster[0].Client()
	write := func(keys ...string) (revision int64) {
		for _, key := range keys {
			resp, err := cli.Put(t.Context(), key, "value of "+key)
			require.NoError(t, err)
			revision = resp.Header.Revision
		}
		return revision
	}
	write("a", "b", "a", "c")
	m, path := snapshot.New(), filepath.Join(t.TempDir(), "db")
	require.NoError(t, m.Save(t.Context(), cluster[1].ClientConfig(), path))
	require.NoError(t, m.Match(t.Context(), cfg, path))
	write("d", "a")
	require.NoError(t, m.Match(t.Context(), cfg, path))
	_, err := cli.Compact(t.Context(), 3, clientv3.WithCompactPhysical())
	require.NoError(t, err)
	require.NoError(t, m.Match(t.Context(), cfg, path), "compacted below the snapshot's revision")

	_, err = cli.Compact(t.Context(), write("e"))
	require.NoError(t, err)
	err = m.Match(t.Context(), cfg, path)
	require.ErrorIs(t, err, snapshot.ErrCompacted)
	require.NotErrorIs(t, err, snapshot.ErrMismatch)

	other := snaptest.Start(t)
	for range 9 {
		_, err := other.Client().Put(t.Context(), "a", "else")
		require.NoError(t, err)
	}
	cfg.Endpoints = []string{other.Endpoint()}
	err = m.Match(t.Context(), cfg, path)
	require.ErrorIs(t, err, snapshot.ErrMismatch)
	require.ErrorContains(t, err, other.Endpoint())
	var e *snapshot.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "match", e.Op)

	require.ErrorIs(t, m.Match(t.Context(), clientv3.Config{}, path), snapshot.ErrEndpoints)
	cfg.Endpoints = []string{snaptest.RefusingEndpoint(t)}
	require.ErrorIs(t, snapshot.New(snapshot.WithConnectTimeout(1)).Match(t.Context(), cfg, path), snapshot.ErrUnreachable)
}
