package interop_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	reference "go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/interop/etcd"
)

const serves = "serves"

// TestAcross boots the snapshot of every minor version on the servers of every
// other. A newer server must serve it. The test records what an older one does; if
// it refuses, it must give the same reason for a directory that etcdutl restored.
func TestAcross(t *testing.T) {
	for i, from := range etcd.Releases() {
		for j, to := range etcd.Releases() {
			t.Run(from.Minor+" on "+to.Minor, func(t *testing.T) {
				need(t, from)
				need(t, to)
				t.Parallel()
				o := originOf(t, from)
				outcome := bootElsewhere(t, o, to)
				if j >= i {
					require.Equal(t, serves, outcome)
				}
				results.noteAcross(from, to, outcome)
			})
		}
	}
}

func bootElsewhere(t *testing.T, o *origin, to *etcd.Release) string {
	cfg := asRoot.restored(t, to, o.plain, 1)[0]
	m := start(t, cfg)
	if reason := refused(t, m); reason != "" {
		_, err := restoreWithEtcdutl(&cfg, o.plain)
		require.NoError(t, err)
		require.Equal(t, reason, refused(t, start(t, cfg)))
		return "refuses: " + reason
	}
	same(t, o, m, 0)
	goesOn(t, dial(t, m), o.contents.Revision)
	settled(t, m)
	m.Stop()
	m = start(t, m.Config)
	ready(t, m)
	same(t, o, m, o.contents.Revision)
	saveAgain(t, m)
	return serves
}

// refused waits for m to serve, and returns its reason if it ends instead.
func refused(t *testing.T, m *etcd.Member) string {
	t.Helper()
	err := m.Ready(soon(t))
	if exit := (*etcd.ExitError)(nil); errors.As(err, &exit) {
		return exit.Reason
	}
	require.NoError(t, err)
	return ""
}

// settled waits until the server has raised the versions of the cluster and the
// storage to its own.
func settled(t *testing.T, m *etcd.Member) {
	t.Helper()
	ctx := soon(t)
	_, err := m.ClusterVersion(ctx)
	require.NoError(t, err)
	if m.Release.Minor < "3.6" {
		return
	}
	cli := dial(t, m)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		st, err := cli.Status(ctx, m.ClientURL)
		require.NoError(c, err)
		require.Equal(c, m.Release.Minor+".0", st.StorageVersion)
	}, patience, 50*time.Millisecond)
}

func restoreWithEtcdutl(cfg *etcd.Config, snap string) (string, error) {
	cfg.DataDir += ".etcdutl"
	return cfg.DataDir, reference.NewV3(zap.NewNop()).Restore(reference.RestoreConfig{
		SnapshotPath:        snap,
		Name:                cfg.Name,
		OutputDataDir:       cfg.DataDir,
		PeerURLs:            []string{cfg.PeerURL},
		InitialCluster:      cfg.Name + "=" + cfg.PeerURL,
		InitialClusterToken: "restored",
	})
}

// TestStaleStorageVersion shows what happens to a storage version that an older
// server, which does not know it, leaves in the file.
func TestStaleStorageVersion(t *testing.T) {
	byMinor := map[string]*etcd.Release{}
	for _, r := range etcd.Releases() {
		byMinor[r.Minor] = r
	}
	from, via, to := byMinor["3.7"], byMinor["3.5"], byMinor["3.6"]
	for _, r := range []*etcd.Release{from, via, to} {
		need(t, r)
	}
	t.Parallel()
	o := originOf(t, from)
	m := asRoot.boot(t, via, o.plain, 1)[0]
	put(t, dial(t, m), "after/older", "1")
	path := m.DataDir + ".again"
	require.NoError(t, lib.Save(soon(t), m.ClientConfig(), path))
	st, err := lib.Verify(soon(t), path)
	require.NoError(t, err)
	require.Equal(t, snapshot.Status{
		Hash: st.Hash, TotalSize: st.TotalSize,
		Revision: o.contents.Revision + 1,
		TotalKey: len(o.contents.Keys) + 1,
		Version:  "3.7.0",
	}, st)
	m.Stop()

	upgraded := m.Config
	upgraded.Release = to
	reason := refused(t, start(t, upgraded))
	require.True(t, strings.Contains(reason, `"3.7.0"`), reason)
	results.noteStale(reason)
}
