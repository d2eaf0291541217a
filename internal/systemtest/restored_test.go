package systemtest_test

// Alarms, ids, leases and the permissions of the directory after a restore, as
// etcd sees them. In every run; with -short only some of them.

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/lease/leasepb"
	"google.golang.org/protobuf/proto"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// boot restores a snapshot as a member of its own and starts it.
func boot(t *testing.T, path string, change func(*snapshot.RestoreConfig)) *snaptest.Etcd {
	t.Helper()
	cfg := apitest.Config(path, filepath.Join(t.TempDir(), "data"))
	cfg.PeerURLs = snaptest.FreePeerURLs(t, 1)
	cfg.InitialCluster = cfg.Name + "=" + cfg.PeerURLs[0]
	change(&cfg)
	require.NoError(t, snapshot.New().Restore(cfg))
	return snaptest.Start(t, snaptest.From(cfg.OutputDataDir, ""), snaptest.With(func(c *snaptest.Config) {
		c.Name, c.PeerURL, c.InitialCluster, c.Token = cfg.Name, cfg.PeerURLs[0], cfg.InitialCluster, cfg.InitialClusterToken
	}))
}

// What an alarm refuses once it has been restored: reads never.
func TestRestoredAlarms(t *testing.T) {
	short.Skip(t, "boots etcd four times")
	put, get, del := clientv3.OpPut("a", "2"), clientv3.OpGet("a"), clientv3.OpDelete("a")
	for alarm, tt := range map[etcdserverpb.AlarmType]struct {
		refusal           error
		refuses, accepted []clientv3.Op
		corrupt           bool
	}{
		etcdserverpb.AlarmType_NOSPACE: {rpctypes.ErrNoSpace, []clientv3.Op{put}, []clientv3.Op{get, del}, false},
		etcdserverpb.AlarmType_CORRUPT: {rpctypes.ErrCorrupt, []clientv3.Op{put, del}, []clientv3.Op{get}, true},
	} {
		t.Run(alarm.String(), func(t *testing.T) {
			const lease = 7
			path := snaptest.History(t).Put("a", "1").Lease(lease, 3600).Alarm(42, alarm).Write(t, filepath.Join(t.TempDir(), "db"), true)
			cli := boot(t, path, func(*snapshot.RestoreConfig) {}).Client()
			list, err := cli.AlarmList(t.Context())
			require.NoError(t, err)
			require.Len(t, list.Alarms, 1)

			for _, op := range tt.accepted {
				_, err := cli.Do(t.Context(), op)
				require.NoError(t, err)
				_, err = cli.Txn(t.Context()).Then(op).Commit()
				require.NoError(t, err)
			}
			_, err = cli.Get(t.Context(), "a", clientv3.WithSerializable())
			require.NoError(t, err)
			for _, op := range tt.refuses {
				_, err := cli.Do(t.Context(), op)
				require.ErrorIs(t, err, tt.refusal)
				_, err = cli.Txn(t.Context()).Then(op).Commit()
				require.ErrorIs(t, err, tt.refusal)
			}
			_, err = cli.Grant(t.Context(), 100)
			require.ErrorIs(t, err, tt.refusal)
			_, err = cli.Revoke(t.Context(), lease)
			require.Equal(t, tt.corrupt, errors.Is(err, rpctypes.ErrCorrupt), "%v", err)
			_, err = cli.Compact(t.Context(), 2)
			require.Equal(t, tt.corrupt, errors.Is(err, rpctypes.ErrCorrupt), "%v", err)

			cli = boot(t, path, func(cfg *snapshot.RestoreConfig) { cfg.DropAlarms = true }).Client()
			_, err = cli.Do(t.Context(), put)
			require.NoError(t, err)
			_, err = cli.Grant(t.Context(), 100)
			require.NoError(t, err)
		})
	}
}

// Ids follow from the peer URLs and the token alone: with those of the original
// cluster they are the original ones.
func TestRestoredIDs(t *testing.T) {
	short.Skip(t, "boots etcd three times")
	const token = "production"
	url := snaptest.FreePeerURLs(t, 1)[0]
	origin := snaptest.Start(t, snaptest.With(func(c *snaptest.Config) { c.Name, c.PeerURL, c.Token = "first", url, token }))
	path := filepath.Join(t.TempDir(), "snap.db")
	require.NoError(t, snapshot.New().Save(t.Context(), origin.ClientConfig(), path))
	want, err := origin.Client().MemberList(t.Context())
	require.NoError(t, err)
	origin.Stop()

	for name, tt := range map[string]struct {
		token string
		same  bool
	}{"original token": {token, true}, "another token": {"restored", false}} {
		t.Run(name, func(t *testing.T) {
			restored := boot(t, path, func(cfg *snapshot.RestoreConfig) {
				cfg.PeerURLs, cfg.InitialCluster, cfg.InitialClusterToken = []string{url}, cfg.Name+"="+url, tt.token
			})
			got, err := restored.Client().MemberList(t.Context())
			require.NoError(t, err)
			require.Equal(t, tt.same, want.Header.ClusterId == got.Header.ClusterId)
			require.Len(t, got.Members, 1)
			require.Equal(t, tt.same, want.Members[0].ID == got.Members[0].ID)
			require.NotEqual(t, want.Members[0].Name, got.Members[0].Name)
			restored.Stop() // the next one has its URL
		})
	}
}

// A lease starts anew with the time that it was granted, but one whose remaining
// time the server has persisted goes on with that.
func TestRestoredLeases(t *testing.T) {
	const plain, checkpointed, granted, remaining = 7, 8, 100_000, 1000
	record, err := proto.Marshal(&leasepb.Lease{ID: checkpointed, TTL: granted, RemainingTTL: remaining})
	require.NoError(t, err)
	db := snaptest.History(t).Lease(plain, granted)
	db.Raw("lease", "\x00\x00\x00\x00\x00\x00\x00\x08", string(record))
	path := db.Write(t, filepath.Join(t.TempDir(), "db"), true)
	cli := boot(t, path, func(*snapshot.RestoreConfig) {}).Client()
	for id, want := range map[clientv3.LeaseID]float64{plain: granted, checkpointed: remaining} {
		lease, err := cli.TimeToLive(t.Context(), id)
		require.NoError(t, err)
		require.EqualValues(t, granted, lease.GrantedTTL)
		require.InDelta(t, want, float64(lease.TTL), remaining/2)
	}
}

// A data directory that was there keeps its permissions.
func TestRestoreKeepsPermissionsOfTheDirectory(t *testing.T) {
	for _, mode := range []os.FileMode{0o755, 0o700, 0o770} {
		dir := filepath.Join(t.TempDir(), "data")
		require.NoError(t, os.Mkdir(dir, 0o700))
		require.NoError(t, os.Chmod(dir, mode.Perm()))
		cfg := apitest.Config(snaptest.SmallFile(t), dir)
		cfg.AllowEmptyDataDir = true
		require.NoError(t, snapshot.New().Restore(cfg))
		for name, want := range map[string]os.FileMode{".": mode.Perm(), "member": 0o700, "member/snap": 0o700, "member/wal": 0o700} {
			info, err := os.Stat(filepath.Join(dir, name))
			require.NoError(t, err)
			require.Equal(t, want, info.Mode().Perm(), name)
		}
	}
}
