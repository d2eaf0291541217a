package snapshot_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
)

// openReader opens a snapshot, which is closed when the test ends.
func openReader(t *testing.T, path string) *snapshot.Reader {
	t.Helper()
	r, err := snapshot.New().Open(t.Context(), path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

func TestReader(t *testing.T) {
	snaptest.NoLeaks(t)
	db := snaptest.NewDB().StorageVersion("3.7.0").Raw("cluster", "clusterVersion", "3.6.0").Put("a", "1").Put("b", "2").Put("a", "3").Delete("b").Put("c", "4")
	r := openReader(t, db.Write(t, filepath.Join(t.TempDir(), "db"), true))
	kv := r.KV()
	latest := r.Info().Revision
	require.Equal(t, db.Revision(), latest)
	require.Equal(t, "3.7.0", r.Info().Version)
	require.Equal(t, "3.6.0", r.Info().ClusterVersion)

	got, err := kv.Get(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, latest, got.Header.Revision)
	require.Equal(t, "3", string(got.Kvs[0].Value))
	got, err = kv.Get(t.Context(), "", clientv3.WithPrefix(), clientv3.WithRev(latest-2))
	require.NoError(t, err)
	require.EqualValues(t, 2, got.Count)
	require.Equal(t, "2", string(got.Kvs[1].Value))
	txn, err := kv.Txn(t.Context()).If(clientv3.Compare(clientv3.Version("a"), "=", 2)).Then(clientv3.OpGet("c")).Commit()
	require.NoError(t, err)
	require.True(t, txn.Succeeded)
	require.Equal(t, "4", string(txn.Responses[0].GetResponseRange().Kvs[0].Value))

	var keys []string
	for kv, err := range r.Range(t.Context(), "a", clientv3.WithFromKey()) {
		require.NoError(t, err)
		keys = append(keys, string(kv.Key)+"="+string(kv.Value))
	}
	require.Equal(t, []string{"a=3", "c=4"}, keys)

	var records []string
	for rec, err := range r.Records(t.Context(), latest-3) {
		require.NoError(t, err)
		records = append(records, fmt.Sprintf("%d.%d %s=%s %v", rec.Revision.Main-latest, rec.Revision.Sub, rec.KeyValue.Key, rec.KeyValue.Value, rec.Tombstone))
	}
	require.Equal(t, []string{"-2.0 a=3 false", "-1.0 b= true", "0.0 c=4 false"}, records)

	var changes []string
	for c, err := range snapshot.Diff(t.Context(), snapshot.At{Reader: r, Revision: latest - 2}, snapshot.At{Reader: r}, "", clientv3.WithPrefix()) {
		require.NoError(t, err)
		changes = append(changes, fmt.Sprintf("%s %t %t", c.Key, c.Before != nil, c.After != nil))
	}
	require.Equal(t, []string{"b true false", "c false true"}, changes)
	for range r.Records(t.Context(), 0) {
		break // holds nothing afterwards: see NoLeaks
	}
}

func TestReaderErrors(t *testing.T) {
	path := snaptest.History(t).Compact(1000).Write(t, filepath.Join(t.TempDir(), "db"), true)
	r := openReader(t, path)
	kv, ctx := r.KV(), t.Context()
	_, put := kv.Put(ctx, "a", "b")
	_, del := kv.Delete(ctx, "a")
	_, compact := kv.Compact(ctx, 1)
	_, txn := kv.Txn(ctx).If(clientv3.Compare(clientv3.Version("a"), "=", 99)).Then(clientv3.OpPut("a", "b")).Commit()
	for _, err := range []error{put, del, compact, txn} {
		require.ErrorIs(t, err, snapshot.ErrReadOnly)
	}
	latest := r.Info().Revision
	for rev, want := range map[int64][]error{
		999:        {snapshot.ErrCompacted, rpctypes.ErrCompacted},
		latest + 1: {snapshot.ErrFuture, rpctypes.ErrFutureRev},
	} {
		_, get := kv.Get(ctx, "a", clientv3.WithRev(rev))
		_, hash := r.HashKV(ctx, rev, 0)
		errs := []error{get, hash}
		for _, err := range r.Range(ctx, "a", clientv3.WithRev(rev), clientv3.WithPrefix()) {
			errs = append(errs, err)
		}
		for _, err := range snapshot.Diff(ctx, snapshot.At{Reader: r}, snapshot.At{Reader: r, Revision: rev}, "a") {
			errs = append(errs, err)
		}
		require.Len(t, errs, 4)
		for i, err := range errs {
			for _, want := range want {
				require.ErrorIs(t, err, want)
			}
			var e *snapshot.Error
			if i > 0 {
				require.ErrorAs(t, err, &e)
				require.Equal(t, path, e.Path)
			}
		}
	}
	_, err := kv.Get(ctx, "a", clientv3.WithRev(1000))
	require.NoError(t, err, "at the compact revision")

	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = kv.Get(cancelled, "a")
	require.ErrorIs(t, err, context.Canceled)
	_, err = snapshot.New().Open(cancelled, path)
	require.ErrorIs(t, err, context.Canceled)
}

func TestReaderHoldsTheFile(t *testing.T) {
	path := snaptest.SmallFile(t)
	db, err := bolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	_, err = snapshot.New().Open(t.Context(), path)
	require.ErrorIs(t, err, snapshot.ErrInUse)
	require.NoError(t, db.Close())

	r, err := snapshot.New().Open(t.Context(), path)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if _, err := r.KV().Get(t.Context(), "key-aa"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	closed := false
	for _, err := range r.Range(t.Context(), "", clientv3.WithPrefix()) { // goes on after Close
		require.NoError(t, err)
		if !closed {
			require.NoError(t, r.Close())
			closed = true
		}
	}
	require.NoError(t, r.Close(), "once more")
	_, err = r.KV().Get(t.Context(), "key-aa")
	require.Error(t, err)
	db, err = bolt.Open(path, 0o600, nil)
	require.NoError(t, err, "the lock is gone")
	require.NoError(t, db.Close())
}

// A db file copied from a data directory is read too, and a damaged file refused.
func TestOpenFiles(t *testing.T) {
	dir := t.TempDir()
	plain := snaptest.History(t).Write(t, filepath.Join(dir, "db"), false)
	openReader(t, plain)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "text"), []byte("no database"), 0o600))
	_, err := snapshot.New().Open(t.Context(), filepath.Join(dir, "text"))
	require.ErrorIs(t, err, snapshot.ErrCorrupt)
	snaptest.Truncate(t, plain, 8192)
	_, err = snapshot.New().Open(t.Context(), plain)
	require.ErrorIs(t, err, snapshot.ErrTruncated)
}

func TestInfo(t *testing.T) {
	e := snaptest.Start(t)
	cli := e.Client()
	lease, err := cli.Grant(t.Context(), 600)
	require.NoError(t, err)
	for _, key := range []string{"a", "b", "c"} {
		_, err := cli.Put(t.Context(), key, "v", clientv3.WithLease(lease.ID))
		require.NoError(t, err)
	}
	_, err = cli.Put(t.Context(), "b", "v") // no longer attached
	require.NoError(t, err)
	_, err = cli.Delete(t.Context(), "c")
	require.NoError(t, err)
	_, err = cli.RoleAdd(t.Context(), "reader")
	require.NoError(t, err)
	_, err = cli.UserAdd(t.Context(), "root", "secret")
	require.NoError(t, err)
	compacted, err := cli.Put(t.Context(), "d", "v")
	require.NoError(t, err)
	_, err = cli.Compact(t.Context(), compacted.Header.Revision, clientv3.WithCompactPhysical())
	require.NoError(t, err)

	path := filepath.Join(t.TempDir(), "db")
	require.NoError(t, snapshot.New().Save(t.Context(), e.ClientConfig(), path))
	status, err := snapshot.New().Status(path)
	require.NoError(t, err)
	info := openReader(t, path).Info()
	require.Equal(t, status, info.Status)
	require.Equal(t, compacted.Header.Revision, info.CompactRevision)
	require.Zero(t, info.ScheduledCompaction)
	require.Equal(t, []snapshot.Lease{{ID: lease.ID, TTL: 600, Keys: 1}}, info.Leases)
	require.Equal(t, []string{"root"}, info.Users)
	require.Contains(t, info.Roles, "reader")
	require.False(t, info.AuthEnabled)
	require.Empty(t, info.Alarms)
	list, err := cli.MemberList(t.Context())
	require.NoError(t, err)
	require.Len(t, info.Members, 1)
	require.Equal(t, list.Members[0].ID, info.Members[0].ID)
	require.Equal(t, list.Members[0].PeerURLs, info.Members[0].PeerURLs)
	require.Equal(t, list.Members[0].ClientURLs, info.Members[0].ClientURLs)
	require.Positive(t, info.InUse)
	require.LessOrEqual(t, info.InUse, info.TotalSize)
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	require.NoError(t, err)
	require.NoError(t, db.View(func(tx *bolt.Tx) error {
		for _, b := range info.Buckets {
			n := int64(0)
			require.NoError(t, tx.Bucket([]byte(b.Name)).ForEach(func(_, _ []byte) error { n++; return nil }))
			require.Equal(t, n, b.Entries, b.Name)
		}
		return nil
	}))
	require.NoError(t, db.Close())
}

// What a server of the newest version records only now and then.
func TestInfoOfRareRecords(t *testing.T) {
	history := func() *snaptest.DB { return snaptest.NewDB().Put("a", "1").Put("a", "2").Put("a", "3") }
	info := func(db *snaptest.DB) snapshot.Info {
		return openReader(t, db.Write(t, filepath.Join(t.TempDir(), "db"), true)).Info()
	}
	for _, version := range []string{"", "3.6.0", "3.7.0"} { // none before 3.6
		require.Equal(t, version, info(history().StorageVersion(version)).Version)
	}
	require.Equal(t, []snapshot.Lease{
		{ID: 7, TTL: 600, RemainingTTL: 42, Keys: 1},
		{ID: 8, TTL: 60},
	}, info(history().LeaseCheckpoint(7, 600, 42).PutLease("b", "1", 7).Lease(8, 60)).Leases)

	for name, tt := range map[string]struct {
		db                   *snaptest.DB
		compacted, scheduled int64
	}{
		"never":    {history(), 0, 0},
		"finished": {history().Compact(3), 3, 0},
		"begun":    {history().CompactPartially(3, 0), 3, 3},
		"half way": {history().Compact(2).CompactPartially(4, 1), 4, 4},
	} {
		got := info(tt.db)
		require.Equal(t, tt.compacted, got.CompactRevision, name)
		require.Equal(t, tt.scheduled, got.ScheduledCompaction, name)
	}
	for _, alarm := range []pb.AlarmType{pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT} {
		require.Equal(t, []snapshot.Alarm{{MemberID: 9, Type: alarm.String()}}, info(history().Alarm(9, alarm)).Alarms)
	}
	auth := history().AuthUser("root", "root").AuthRole("root", "", "").AuthEnable(3)
	require.True(t, info(auth).AuthEnabled)
}
