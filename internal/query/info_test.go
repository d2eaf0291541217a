package query_test

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot/internal/query"
	"etcd.example/snapshot/internal/snaptest"
)

// Info says what the cluster says of itself.
func TestInfoEqualsTheCluster(t *testing.T) {
	ctx := t.Context()
	e := snaptest.Start(t)
	learner := snaptest.Join(t, e, "learner", true)
	require.NotEmpty(t, learner.Endpoint())
	cli := e.Client()
	lease := func(ttl int64) clientv3.LeaseID {
		l, err := cli.Grant(ctx, ttl)
		require.NoError(t, err)
		return l.ID
	}
	none, some, gone := lease(100), lease(2000), lease(30000)
	revoked := lease(4000)
	for _, key := range []string{"a", "b", "c", "d", "f"} {
		put(t, e, key, clientv3.WithLease(some))
	}
	put(t, e, "revoked", clientv3.WithLease(revoked))
	remove(t, e, "b")                         // deleted
	put(t, e, "c")                            // put again without the lease
	put(t, e, "d", clientv3.WithLease(gone))  // with another
	put(t, e, "a", clientv3.WithLease(some))  // with the same
	put(t, e, "e", clientv3.WithLease(gone))  // and deleted with a range
	remove(t, e, "e", clientv3.WithFromKey()) // "e", "f", "revoked"
	put(t, e, "f", clientv3.WithLease(some))  // back again
	_, err := cli.Revoke(ctx, revoked)
	require.NoError(t, err)
	require.NotEqual(t, none, some)

	// As servers raise alarms.
	for _, alarm := range []pb.AlarmType{pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT} {
		_, err := pb.NewMaintenanceClient(cli.ActiveConnection()).Alarm(ctx, &pb.AlarmRequest{
			Action: pb.AlarmRequest_ACTIVATE, MemberID: uint64(e.Server.Server.MemberID()), Alarm: alarm,
		})
		require.NoError(t, err)
	}
	for _, role := range []string{"root", "reader"} {
		_, err := cli.RoleAdd(ctx, role)
		require.NoError(t, err)
	}
	for user, role := range map[string]string{"root": "root", "alice": "reader", "bob": "reader"} {
		_, err := cli.UserAdd(ctx, user, "secret")
		require.NoError(t, err)
		_, err = cli.UserGrantRole(ctx, user, role)
		require.NoError(t, err)
	}
	info := openDB(t, save(t, e)).Info

	members, err := cli.MemberList(ctx)
	require.NoError(t, err)
	require.Len(t, info.Members, 2)
	slices.SortFunc(members.Members, func(a, b *pb.Member) int { return cmp.Compare(a.ID, b.ID) })
	for i, m := range members.Members {
		require.Equal(t, query.Member{ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.IsLearner}, info.Members[i])
	}
	require.True(t, info.Members[0].IsLearner != info.Members[1].IsLearner)

	leases, err := cli.Leases(ctx)
	require.NoError(t, err)
	require.Len(t, leases.Leases, 3)
	slices.SortFunc(leases.Leases, func(a, b clientv3.LeaseStatus) int { return cmp.Compare(a.ID, b.ID) })
	for i, l := range leases.Leases {
		ttl, err := cli.TimeToLive(ctx, l.ID, clientv3.WithAttachedKeys())
		require.NoError(t, err)
		require.Equal(t, query.Lease{ID: int64(l.ID), TTL: ttl.GrantedTTL, Keys: len(ttl.Keys)}, info.Leases[i], "%s", ttl.Keys)
	}

	alarms, err := cli.AlarmList(ctx)
	require.NoError(t, err)
	require.Len(t, alarms.Alarms, 2)
	require.Len(t, info.Alarms, 2)
	for _, a := range alarms.Alarms {
		require.Contains(t, info.Alarms, query.Alarm{MemberID: a.MemberID, Type: a.Alarm.String()})
	}

	require.False(t, info.AuthEnabled)
	require.Equal(t, []string{"alice", "bob", "root"}, info.Users)
	require.Equal(t, []string{"reader", "root"}, info.Roles)
	require.Equal(t, e.Server.Server.ClusterVersion().String(), info.ClusterVersion)
}

func TestInfoAuthEnabled(t *testing.T) {
	e := snaptest.Start(t)
	cli, ctx := e.Client(), t.Context()
	_, err := cli.UserAdd(ctx, "root", "secret")
	require.NoError(t, err)
	_, err = cli.UserGrantRole(ctx, "root", "root")
	require.NoError(t, err)
	path := save(t, e)
	require.False(t, openDB(t, path).Info.AuthEnabled)
	_, err = cli.AuthEnable(ctx)
	require.NoError(t, err)
	saveAs := e.ClientConfig()
	saveAs.Username, saveAs.Password = "root", "secret"
	root, err := clientv3.New(saveAs)
	require.NoError(t, err)
	defer func() { require.NoError(t, root.Close()) }()
	_, err = root.Put(ctx, "a", "1")
	require.NoError(t, err)
	stream, err := root.Snapshot(ctx)
	require.NoError(t, err)
	f, err := os.Create(path)
	require.NoError(t, err)
	_, err = f.ReadFrom(stream)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.True(t, openDB(t, path).Info.AuthEnabled)
	_, err = root.AuthDisable(ctx)
	require.NoError(t, err)
	require.False(t, openDB(t, save(t, e)).Info.AuthEnabled)
}

// The numbers about buckets and pages are those of bbolt.
func TestBucketsEqualBolt(t *testing.T) {
	for name, db := range map[string]*snaptest.DB{
		"empty":      snaptest.NewDB(),
		"history":    snaptest.History(t).Lease(7, 60).AuthUser("root").Put("large", strings.Repeat("v", 1<<20)),
		"free pages": snaptest.History(t).Fragment(),
		"freelist":   snaptest.History(t).Fragment().WithFreelist(true),
		"many pages": snaptest.NewDB().Large(30_000, 50),
	} {
		t.Run(name, func(t *testing.T) {
			path := db.Write(t, filepath.Join(t.TempDir(), "db"), false)
			x := openDB(t, path)
			b, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true})
			require.NoError(t, err)
			defer func() { require.NoError(t, b.Close()) }()
			var pages int64
			require.NoError(t, b.View(func(tx *bbolt.Tx) error {
				i := 0
				err := tx.ForEach(func(name []byte, bucket *bbolt.Bucket) error {
					var entries, size int64
					if err := bucket.ForEach(func(k, v []byte) error {
						entries++
						size += int64(len(k) + len(v))
						return nil
					}); err != nil {
						return err
					}
					require.Equal(t, string(name), x.Buckets[i].Name)
					require.Equal(t, entries, x.Buckets[i].Entries, "%s", name)
					require.Equal(t, size, x.Buckets[i].Bytes, "%s", name)
					i++
					return nil
				})
				require.Len(t, x.Buckets, i)
				pages = tx.Size() / int64(b.Info().PageSize)
				return err
			}))
			used := pages - int64(b.Stats().FreePageN+b.Stats().PendingPageN)
			require.Equal(t, used*int64(b.Info().PageSize), x.InUse)
		})
	}
}

// Leases count the same in a pass over many pieces.
func TestLeasesOverManyPieces(t *testing.T) {
	db := snaptest.NewDB().Lease(1, 60).Lease(2, 70).Lease(3, 80)
	want := map[int64]int{1: 0, 2: 0, 3: 0}
	for round := range 3 {
		for i := range 6000 {
			key := "k" + strings.Repeat("x", i%50) + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))
			switch (i + round) % 5 {
			case 0:
				db.Put(key, "no lease")
			case 1:
				db.Delete(key)
			default:
				db.PutLease(key, "leased", int64((i+round)%3+1))
			}
		}
	}
	for _, kv := range db.Live() {
		if kv.Lease != 0 {
			want[kv.Lease]++
		}
	}
	x := openDB(t, db.Write(t, filepath.Join(t.TempDir(), "db"), true))
	require.Len(t, x.Info.Leases, 3)
	for _, l := range x.Info.Leases {
		require.Equal(t, want[l.ID], l.Keys)
		require.Equal(t, 50+10*l.ID, l.TTL)
	}
}

// A record that is too large to be held in memory has a lease too.
func TestLeaseOfALargeValue(t *testing.T) {
	db := snaptest.NewDB().Lease(1, 60).PutLease("large", strings.Repeat("v", 5<<20), 1)
	x := openDB(t, db.Write(t, filepath.Join(t.TempDir(), "db"), true))
	require.Equal(t, []query.Lease{{ID: 1, TTL: 60, Keys: 1}}, x.Info.Leases)
}

// The compact revision counts before and after the compaction has ended.
func TestCompactRevisions(t *testing.T) {
	for name, tt := range map[string]struct {
		db                           *snaptest.DB
		current, finished, scheduled int64
	}{
		"never":       {snaptest.NewDB().Put("a", "1"), 2, 0, 0},
		"empty":       {snaptest.NewDB(), 1, 0, 0},
		"finished":    {snaptest.NewDB().Put("a", "1").Put("a", "2").Compact(3), 3, 3, 3},
		"scheduled":   {snaptest.NewDB().Put("a", "1").Put("a", "2").Put("a", "3").CompactPartially(3, 0), 4, 0, 3},
		"second":      {snaptest.NewDB().Put("a", "1").Put("a", "2").Put("a", "3").Compact(2).CompactPartially(4, 1), 4, 2, 4},
		"all removed": {snaptest.NewDB().Put("a", "1").Delete("a").DropBucket("key").EmptyBucket("key").Compact(3), 3, 3, 3},
	} {
		t.Run(name, func(t *testing.T) {
			x, err := query.Open(context.Background(), tt.db.Write(t, filepath.Join(t.TempDir(), "db"), true), nil)
			require.NoError(t, err)
			defer func() { require.NoError(t, x.Close()) }()
			require.Equal(t, []int64{tt.current, tt.finished, tt.scheduled}, []int64{x.Current, x.Finished, x.Scheduled})
			require.Equal(t, max(tt.finished, tt.scheduled), x.Compacted)
		})
	}
}
