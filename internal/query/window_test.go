package query_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"etcd.example/snapshot/internal/query"
	"etcd.example/snapshot/internal/snaptest"
)

// A range that is read page by page is the same on each page, however few keys are
// held at a time.
func TestPages(t *testing.T) {
	e := snaptest.Start(t)
	fillMany(t, e, 600, "first")
	old := current(t, e)
	rng := rand.New(rand.NewPCG(15, 200))
	fill(t, rng, e, 60)
	fillMany(t, e, 200, "second")
	remove(t, e, "k/b", clientv3.WithPrefix())
	l := saved(t, e)
	for _, size := range []int64{500, 2000, 8000, 32 << 20} {
		l.db.SetMaxWindow(size)
		for _, rev := range []int64{0, old, old + 30} {
			for _, limit := range []int64{7, 100} {
				t.Run(fmt.Sprintf("%d bytes, revision %d, %d keys a page", size, rev, limit), func(t *testing.T) {
					l.requireSamePages(t, "k/", clientv3.GetPrefixRangeEnd("k/"), rev, limit, size < 10_000)
				})
			}
		}
	}
	l.requireSamePages(t, "k/a/3", "k/d", old, 50, false)
	l.requireSamePages(t, "k/a/3", "\x00", 0, 50, false)
}

func (l *live) requireSamePages(t *testing.T, key, end string, rev, limit int64, parts bool) {
	t.Helper()
	seen := false
	for page := 0; ; page++ {
		if limit == 7 && page == 20 {
			return
		}
		opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithRev(rev), clientv3.WithLimit(limit)}
		want, err := l.Client().Get(t.Context(), key, opts...)
		require.NoError(t, err)
		got, err := l.kv.Get(t.Context(), key, opts...)
		seen = seen || l.db.WindowIsPart()
		requireSame(t, (*pb.RangeResponse)(want), (*pb.RangeResponse)(got), nil, err, fmt.Sprintf("page %d from %q", page, key))
		if !got.More {
			require.Equal(t, parts, seen, "a window is a part of the range")
			return
		}
		key = string(got.Kvs[len(got.Kvs)-1].Key) + "\x00"
	}
}

// diffOf is what Diff must yield: from two answers, with maps.
func diffOf(before, after []*mvccpb.KeyValue) (changes []query.Change) {
	all := map[string]*query.Change{}
	at := func(kv *mvccpb.KeyValue) *query.Change {
		if all[string(kv.Key)] == nil {
			all[string(kv.Key)] = &query.Change{Key: kv.Key}
		}
		return all[string(kv.Key)]
	}
	for _, kv := range before {
		at(kv).Before = kv
	}
	for _, kv := range after {
		at(kv).After = kv
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if c := all[key]; !proto.Equal(c.Before, c.After) {
			changes = append(changes, *c)
		}
	}
	return changes
}

func requireSameChanges(t *testing.T, want, got []query.Change, name string) {
	t.Helper()
	require.Len(t, got, len(want), name)
	for i := range want {
		require.Equal(t, string(want[i].Key), string(got[i].Key), name)
		require.Equal(t, want[i].Before == nil, got[i].Before == nil, name)
		require.Equal(t, want[i].After == nil, got[i].After == nil, name)
		require.True(t, proto.Equal(want[i].Before, got[i].Before), "%s: %s", name, want[i].Key)
		require.True(t, proto.Equal(want[i].After, got[i].After), "%s: %s", name, want[i].Key)
	}
}

// Two snapshots, or two revisions of one, differ as the answers to two Gets do.
func TestDiff(t *testing.T) {
	rng := rand.New(rand.NewPCG(15, 300))
	e := snaptest.Start(t)
	fill(t, rng, e, 150)
	early := openDB(t, save(t, e))
	fill(t, rng, e, 50)
	compact(t, e, current(t, e)-70)
	late := openDB(t, save(t, e))
	other := snaptest.Start(t)
	fill(t, rng, other, 100)
	foreign := openDB(t, save(t, other))
	small := openDB(t, save(t, e))
	small.SetMaxWindow(1200)

	kv := func(db *query.Database) clientv3.KV { return clientv3.NewKVFromKVClient(query.Client{DB: db}, nil) }
	dbs := []*query.Database{early, late, foreign, small}
	differ := 0
	for i := range 200 * *queries {
		from, to := dbs[rng.IntN(len(dbs))], dbs[rng.IntN(len(dbs))]
		rev := func(db *query.Database) int64 {
			if rng.IntN(4) == 0 {
				return 0
			}
			return max(db.Compacted, 1) + rng.Int64N(db.Current-max(db.Compacted, 1)+1)
		}
		g := &generator{Rand: rng, latest: to.Current, compacted: to.Compacted}
		key, opts := "k/"+string(rune('a'+rng.IntN(4))), []clientv3.OpOption{clientv3.WithPrefix()}
		switch rng.IntN(5) {
		case 0:
			key, opts = randomKey(rng), nil
		case 1:
			key, opts = randomKey(rng), []clientv3.OpOption{clientv3.WithRange(randomKey(rng))}
		case 2:
			key, opts = randomKey(rng), []clientv3.OpOption{clientv3.WithFromKey()}
		case 3:
			key, opts = "", []clientv3.OpOption{clientv3.WithPrefix()}
		}
		fromRev, toRev := rev(from), rev(to)
		get := func(db *query.Database, rev int64) []*mvccpb.KeyValue {
			resp, err := kv(db).Get(t.Context(), key, append(opts, clientv3.WithRev(rev))...)
			require.NoError(t, err)
			return resp.Kvs
		}
		want := diffOf(get(from, fromRev), get(to, toRev))
		var got []query.Change
		name := fmt.Sprintf("diff %d: %s at %d and %d", i, key, fromRev, toRev)
		ignored := []clientv3.OpOption{clientv3.WithKeysOnly(), clientv3.WithLimit(1), clientv3.WithRev(g.revision())}
		for c, err := range query.Diff(t.Context(), query.At{DB: from, Revision: fromRev}, query.At{DB: to, Revision: toRev}, request(t.Context(), key, append(opts, ignored...)...)) {
			require.NoError(t, err, name)
			got = append(got, c)
		}
		requireSameChanges(t, want, got, name)
		if len(want) > 0 {
			differ++
		}
	}
	require.Greater(t, differ, 100**queries)
}

// A Diff that ends early leaves nothing running, and can be used again.
func TestDiffStops(t *testing.T) {
	snaptest.NoLeaks(t)
	history := snaptest.History(t)
	db := openDB(t, history.Write(t, filepath.Join(t.TempDir(), "db"), true))
	db.SetMaxWindow(5000)
	diff := query.Diff(t.Context(), query.At{DB: db, Revision: 1000}, query.At{DB: db}, request(t.Context(), "", clientv3.WithPrefix()))
	for _, n := range []int{1, 2, 50, 200, 1} {
		var last []byte
		i := 0
		for c, err := range diff {
			require.NoError(t, err)
			require.Positive(t, bytes.Compare(c.Key, last))
			last = c.Key
			if i++; i == n {
				break
			}
		}
		require.Equal(t, n, i)
	}
}

// The empty key of a revision bump is not among the keys that a request can name.
func TestBumpHasNoKey(t *testing.T) {
	db := snaptest.NewDB().Put("a", "1").Bump(10).Put("b", strings.Repeat("v", 10))
	x := openDB(t, db.Write(t, filepath.Join(t.TempDir(), "db"), true))
	got, err := rangeOf(t.Context(), x, "", clientv3.WithPrefix())
	require.NoError(t, err)
	requireSameKeyValues(t, db.Live(), got, "Range")
	require.Len(t, recordsOf(t, x, 0), 3)
}
