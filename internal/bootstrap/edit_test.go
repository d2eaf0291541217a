package bootstrap_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/cindex"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/bootstrap"
)

// records are the buckets of a database and what is in them.
type records map[string]map[string]string

// rev is the key of a change in bucket key.
func rev(main, sub int64) string {
	k := binary.BigEndian.AppendUint64(nil, uint64(main))
	return string(binary.BigEndian.AppendUint64(append(k, '_'), uint64(sub)))
}

// oldCluster is the database of a cluster that has lived: members that came and
// went, a compaction, alarms, and records that a restore must not touch.
func oldCluster() records {
	alarm, err := proto.Marshal(&etcdserverpb.AlarmMember{
		MemberID: 0xdead, Alarm: etcdserverpb.AlarmType_NOSPACE,
	})
	if err != nil {
		panic(err)
	}
	r := records{
		"alarm":           {string(alarm): ""},
		"auth":            {"authEnabled": "\x00", "authRevision": "12345678"},
		"cluster":         {"clusterVersion": "3.7.0", "downgrade": `{"target-version":"","enabled":false}`},
		"key":             {},
		"lease":           {"12345678": "lease"},
		"members":         {},
		"members_removed": {},
		"meta": {
			"confState": `{"voters":[1,2,3],"auto_leave":false}`, "consistent_index": "\x00\x00\x00\x00\x00\x00\x10\x00",
			"finishedCompactRev": rev(3, 0), "scheduledCompactRev": rev(5, 0), "storageVersion": "3.7.0",
			"term": "\x00\x00\x00\x00\x00\x00\x00\x09",
		},
	}
	for i := range int64(300) {
		r["key"][rev(i+2, 0)] = fmt.Sprintf("value %d", i)
		r["members"][fmt.Sprintf("%x", i+1)] = fmt.Sprintf(`{"id":%d,"name":"old%d"}`, i+1, i)
		r["members_removed"][fmt.Sprintf("%x", i+1000)] = "removed"
	}
	r["key"][rev(302, 7)+"t"] = "tombstone"
	return r
}

// without returns r without some of its buckets.
func (r records) without(buckets ...string) records {
	for _, b := range buckets {
		delete(r, b)
	}
	return r
}

// with returns r with a record set.
func (r records) with(bucket, key, value string) records {
	if r[bucket] == nil {
		r[bucket] = map[string]string{}
	}
	r[bucket][key] = value
	return r
}

func (r records) write(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "db")
	update(t, path, func(tx *bbolt.Tx) error {
		for name, kvs := range r {
			b, err := tx.CreateBucket([]byte(name))
			require.NoError(t, err)
			for k, v := range kvs {
				require.NoError(t, b.Put([]byte(k), []byte(v)))
			}
		}
		return nil
	})
	return path
}

func read(t *testing.T, path string) records {
	t.Helper()
	r := records{}
	update(t, path, func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			kvs := map[string]string{}
			r[string(name)] = kvs
			return b.ForEach(func(k, v []byte) error {
				kvs[string(k)] = string(v)
				return nil
			})
		})
	})
	return r
}

// update runs fn in a transaction on the database at path, and commits it.
func update(t *testing.T, path string, fn func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, NoFreelistSync: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	require.NoError(t, db.Update(fn))
}

// edit runs Edit on the database at path, and commits it.
func edit(t *testing.T, path string, c *bootstrap.Cluster, ch bootstrap.Changes) (revision int64, err error) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	info, err := f.Stat()
	require.NoError(t, err)
	db, err := boltfile.Open(f, info.Size())
	require.NoError(t, err)
	checked := ch.CheckBump(t.Context(), db)
	_, buckets, err := db.Scan(t.Context(), boltfile.Options{})
	if err != nil {
		return 0, err
	}
	tx := db.Edit(t.Context(), f, buckets)
	if revision, err = c.Edit(tx, ch); err != nil {
		var overflow *bootstrap.OverflowError
		require.Equal(t, errors.As(err, &overflow), errors.As(checked, &overflow))
		return revision, err
	}
	require.NoError(t, checked)
	return revision, tx.Commit()
}

// etcdEdit does with etcd's functions what etcdutl does with them.
func etcdEdit(t *testing.T, path string, l layout, ch bootstrap.Changes) {
	t.Helper()
	lg := zap.NewNop()
	be := backend.NewDefaultBackend(lg, path)
	mb := schema.NewMembershipBackend(lg, be)
	require.NoError(t, mb.TrimMembershipFromBackend())
	be.ForceCommit()
	if ch.RevisionBump > 0 {
		tx := be.BatchTx()
		tx.LockOutsideApply()
		var latest mvcc.Revision
		require.NoError(t, tx.UnsafeForEach(schema.Key, func(k, _ []byte) error {
			if r := mvcc.BytesToRev(k); r.GreaterThan(latest) {
				latest = r
			}
			return nil
		}))
		bumped := mvcc.Revision{Main: latest.Main + int64(ch.RevisionBump)}
		tx.UnsafePut(schema.Key, mvcc.RevToBytes(bumped, mvcc.NewRevBytes()), []byte{})
		mvcc.UnsafeSetScheduledCompact(tx, bumped.Main)
		tx.Unlock()
	}
	if ch.DropAlarms {
		alarms := schema.NewAlarmBackend(lg, be)
		all, err := alarms.GetAllAlarms()
		require.NoError(t, err)
		for _, a := range all {
			alarms.MustDeleteAlarm(a)
		}
	}
	rc := l.etcds(t)
	rc.SetBackend(mb)
	for _, m := range rc.Members() {
		rc.AddMember(m, true)
	}
	cindex.UpdateConsistentIndexForce(be.BatchTx(), uint64(len(rc.Members())), 1)
	be.ForceCommit()
	require.NoError(t, be.Close())
}

func TestEditIsEtcds(t *testing.T) {
	bump := bootstrap.Changes{RevisionBump: 1000}
	for _, tt := range []struct {
		title   string
		db      records
		changes bootstrap.Changes
		want    int64
	}{
		{"no changes", oldCluster(), bootstrap.Changes{}, 0},
		{"bump", oldCluster(), bump, 1302},
		{"alarms", oldCluster(), bootstrap.Changes{DropAlarms: true}, 0},
		{"bump and alarms", oldCluster(), bootstrap.Changes{RevisionBump: 1, DropAlarms: true}, 303},
		{"before 3.5", oldCluster().without("members", "members_removed", "cluster"), bump, 1302},
		{"no look at keys without a bump", oldCluster().with("key", "x", ""), bootstrap.Changes{}, 0},
		{"no key", records{"meta": {}, "key": {}, "alarm": {}}, bump, 1000},
		{"up to the last revision", oldCluster(), bootstrap.Changes{RevisionBump: math.MaxInt64 - 302}, math.MaxInt64},
	} {
		t.Run(tt.title, func(t *testing.T) {
			eachLayout(t, func(t *testing.T, l layout) {
				ours, theirs := tt.db.write(t), tt.db.write(t)
				c := l.ours(t)
				got, err := edit(t, ours, c, tt.changes)
				require.NoError(t, err)
				require.Equal(t, tt.want, got)
				etcdEdit(t, theirs, l, tt.changes)
				require.Equal(t, read(t, theirs), read(t, ours))
			})
		})
	}
}

// What etcd has no counterpart for, or stops the process over.
func TestEditIsLenient(t *testing.T) {
	c := layouts[2].ours(t)
	for _, tt := range []struct {
		title   string
		db      records
		changes bootstrap.Changes
		want    int64
	}{
		{"no key bucket", records{"meta": {}}, bootstrap.Changes{RevisionBump: 5}, 5},
		{"no alarm bucket", records{"meta": {}}, bootstrap.Changes{DropAlarms: true}, 0},
		{"a member with a key that is no id", records{"meta": {}}.with("members", "not hex", "{}"), bootstrap.Changes{}, 0},
	} {
		t.Run(tt.title, func(t *testing.T) {
			path := tt.db.write(t)
			revision, err := edit(t, path, c, tt.changes)
			require.NoError(t, err)
			require.Equal(t, tt.want, revision)
			got := read(t, path)
			require.Len(t, got["members"], 3)
			require.Equal(t, "\x00\x00\x00\x00\x00\x00\x00\x03", got["meta"]["consistent_index"])
			require.NotContains(t, got, "alarm")
			if tt.changes.RevisionBump > 0 {
				require.Equal(t, map[string]string{rev(5, 0): ""}, got["key"])
			}
		})
	}
}

// nested makes a bucket where a record belongs.
func nested(bucket, name string) func(*bbolt.Tx) error {
	return func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(bucket))
		if err != nil {
			return err
		}
		_, err = b.CreateBucket([]byte(name))
		return err
	}
}

// flat makes a record where a bucket belongs.
func flat(bucket string) func(*bbolt.Tx) error {
	return func(tx *bbolt.Tx) error { return tx.Cursor().Bucket().Put([]byte(bucket), []byte("v")) }
}

func lastKey(key string) func(*bbolt.Tx) error {
	return func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte("key"))
		if err != nil {
			return err
		}
		return b.Put([]byte(key), []byte("v"))
	}
}

func TestEditMalformed(t *testing.T) {
	all := bootstrap.Changes{RevisionBump: 1, DropAlarms: true}
	member := layouts[0].ours(t).LocalID().String()
	for _, tt := range []struct {
		title  string
		damage func(*bbolt.Tx) error
		want   string
	}{
		{"a bucket among the members", nested("members", "x"), `bucket "members": "x" is a bucket, not a record`},
		{"a bucket with the key of the new member", nested("members", member), `bucket "members": "` + member + `" is a bucket`},
		{"a bucket among the removed members", nested("members_removed", "x"), `bucket "members_removed": "x" is a bucket`},
		{"a bucket among the alarms", nested("alarm", "x"), `bucket "alarm": "x" is a bucket`},
		{"consistent index is a bucket", nested("meta", "consistent_index"), `bucket "meta": "consistent_index" is a bucket`},
		{"term is a bucket", nested("meta", "term"), `bucket "meta": "term" is a bucket`},
		{"compaction is a bucket", nested("meta", "scheduledCompactRev"), `bucket "meta": "scheduledCompactRev" is a bucket`},
		{"members is a record", flat("members"), `a record where a bucket should be`},
		{"meta is a record", flat("meta"), `a record where a bucket should be`},
		{"last key is a bucket", nested("key", rev(9, 0)), `a bucket where a record should be`},
		{"last key is short", lastKey("\x7f"), `bucket "key": last record 7f is not a revision`},
		{"last key is one byte short", lastKey(rev(9, 0)[:16]), `is not a revision`},
		{"last key is too long", lastKey(rev(9, 0) + "tt"), `is not a revision`},
		{"last key has another mark", lastKey(rev(9, 0) + "x"), `is not a revision`},
		{"last key has another separator", lastKey("12345678-12345678"), `last record 31323334353637382d3132333435363738 is`},
		{"last revision is negative", lastKey(rev(-1, 0)), `last record ffffffffffffffff5f0000000000000000 is`},
		{"last sub-revision is negative", lastKey(rev(1, -1)), `is not a revision`},
	} {
		t.Run(tt.title, func(t *testing.T) {
			path := records{"meta": {}}.write(t)
			if tt.title == "meta is a record" {
				path = records{}.write(t)
			}
			update(t, path, tt.damage)
			got, err := edit(t, path, layouts[0].ours(t), all)
			require.Zero(t, got)
			var malformed *bootstrap.MalformedError
			var corrupt *boltfile.CorruptError
			require.True(t, errors.As(err, &malformed) || errors.As(err, &corrupt))
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestEditWithoutMeta(t *testing.T) {
	for title, db := range map[string]string{
		"empty":         records{}.write(t),
		"other buckets": records{"key": {}}.write(t),
	} {
		t.Run(title, func(t *testing.T) {
			_, err := edit(t, db, layouts[0].ours(t), bootstrap.Changes{})
			var malformed *bootstrap.MalformedError
			require.ErrorAs(t, err, &malformed)
			require.ErrorContains(t, err, `bucket "meta": missing`)
		})
	}
}

func TestEditOverflow(t *testing.T) {
	for _, tt := range []struct {
		latest int64
		bump   uint64
	}{
		{1, math.MaxInt64},
		{math.MaxInt64, 1},
		{math.MaxInt64 - 1, 2},
		{5, math.MaxUint64},
		{5, math.MaxUint64 - 4}, // 0 if added in 64 bits
	} {
		path := records{"meta": {}}.with("key", rev(tt.latest, 3), "v").write(t)
		got, err := edit(t, path, layouts[0].ours(t), bootstrap.Changes{RevisionBump: tt.bump})
		require.Zero(t, got)
		var overflow *bootstrap.OverflowError
		require.ErrorAs(t, err, &overflow)
		require.Equal(t, bootstrap.OverflowError{Latest: tt.latest, Bump: tt.bump}, *overflow)
		require.ErrorContains(t, err, fmt.Sprintf("latest revision %d plus bump %d is more than 9223372036854775807", tt.latest, tt.bump))
	}
}
