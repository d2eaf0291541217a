package query_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"etcd.example/snapshot/internal/keyspace"
	"etcd.example/snapshot/internal/query"
	"etcd.example/snapshot/internal/snaptest"
)

// asked takes the request that etcd's client makes of a key and options.
type asked struct {
	pb.KVClient
	*pb.RangeRequest
}

func (a *asked) Range(_ context.Context, req *pb.RangeRequest, _ ...grpc.CallOption) (*pb.RangeResponse, error) {
	a.RangeRequest = req
	return &pb.RangeResponse{}, nil
}

func request(ctx context.Context, key string, opts ...clientv3.OpOption) *pb.RangeRequest {
	var a asked
	if _, err := clientv3.NewKVFromKVClient(&a, nil).Get(ctx, key, opts...); err != nil {
		panic(err)
	}
	return a.RangeRequest
}

func rangeOf(ctx context.Context, db *query.Database, key string, opts ...clientv3.OpOption) (kvs []*mvccpb.KeyValue, _ error) {
	for kv, err := range db.Range(ctx, request(ctx, key, opts...)) {
		if err != nil {
			return kvs, err
		}
		kvs = append(kvs, kv)
	}
	return kvs, nil
}

func requireSameKeyValues(t *testing.T, want, got []*mvccpb.KeyValue, name string) {
	t.Helper()
	require.Len(t, got, len(want), name)
	for i := range want {
		if !proto.Equal(want[i], got[i]) { // which prints nothing: a value may be large
			require.Failf(t, "not equal", "%s: element %d: want %.500s, got %.500s", name, i, want[i], got[i])
		}
	}
}

func recordsOf(t *testing.T, db *query.Database, after int64) (all []query.Record) {
	t.Helper()
	for r, err := range db.Records(t.Context(), after) {
		require.NoError(t, err)
		all = append(all, r)
	}
	return all
}

func requireSameRecords(t *testing.T, want, got []query.Record) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.Equal(t, want[i].Revision, got[i].Revision)
		requireSameKeyValues(t, []*mvccpb.KeyValue{want[i].KeyValue}, []*mvccpb.KeyValue{got[i].KeyValue}, fmt.Sprint(want[i].Revision))
	}
}

// fromEvent is the record behind an event: the next one of its revision.
func fromEvent(ev *clientv3.Event, before keyspace.Revision) query.Record {
	r := query.Record{Revision: keyspace.Revision{Main: ev.Kv.ModRevision}, KeyValue: ev.Kv}
	if before.Main == r.Revision.Main {
		r.Revision.Sub = before.Sub + 1
	}
	if ev.Type == clientv3.EventTypeDelete {
		r.Revision.Tombstone = true
		r.KeyValue = &mvccpb.KeyValue{Key: ev.Kv.Key}
	}
	return r
}

// The records are the events of a watch over all keys from the beginning on.
func TestRecordsEqualEvents(t *testing.T) {
	e := snaptest.Start(t)
	fill(t, rand.New(rand.NewPCG(15, 100)), e, 300)
	db := openDB(t, save(t, e))
	var want []query.Record
	last := keyspace.Revision{}
	for resp := range e.Client().Watch(t.Context(), "\x00", clientv3.WithFromKey(), clientv3.WithRev(1)) {
		require.NoError(t, resp.Err())
		for _, ev := range resp.Events {
			want = append(want, fromEvent(ev, last))
			last = want[len(want)-1].Revision
		}
		if last.Main == db.Current {
			break
		}
	}
	requireSameRecords(t, want, recordsOf(t, db, 0))
	for _, after := range []int64{-5, 0, 1, 2, 100, db.Current - 1, db.Current, db.Current + 1} {
		rest := want
		for len(rest) > 0 && rest[0].Revision.Main <= after {
			rest = rest[1:]
		}
		requireSameRecords(t, rest, recordsOf(t, db, after))
	}
}

// An iteration can end early, and the same iterator be used again.
func TestRecordsAndRangeStop(t *testing.T) {
	snaptest.NoLeaks(t)
	db := openDB(t, snaptest.SmallFile(t))
	ctx := t.Context()
	records, keys := db.Records(ctx, 0), db.Range(ctx, request(ctx, "key-", clientv3.WithPrefix()))
	for _, n := range []int{1, 2, 100, 1, 300} {
		i := 0
		for r, err := range records {
			require.NoError(t, err)
			require.GreaterOrEqual(t, r.Revision.Main, int64(2))
			if i++; i == n {
				break
			}
		}
		require.Equal(t, n, i)
		i = 0
		for kv, err := range keys {
			require.NoError(t, err)
			require.NotEmpty(t, kv.Key)
			if i++; i == n {
				break
			}
		}
		require.Equal(t, n, i)
	}
	all := recordsOf(t, db, 0)
	i := 0
	for r, err := range records {
		require.NoError(t, err)
		require.Equal(t, all[i].Revision, r.Revision)
		i++
	}
	require.Len(t, all, i)
}

// An iteration whose context ends yields the error once.
func TestCancelledIteration(t *testing.T) {
	snaptest.NoLeaks(t)
	db := openDB(t, snaptest.NewDB().Large(30_000, 100).Write(t, filepath.Join(t.TempDir(), "db"), true))
	all := func(ctx context.Context) *pb.RangeRequest { return request(ctx, "", clientv3.WithPrefix()) }
	for name, iterate := range map[string]func(ctx context.Context, yield func(error) bool){
		"Records": func(ctx context.Context, yield func(error) bool) {
			db.Records(ctx, 0)(func(_ query.Record, err error) bool { return yield(err) })
		},
		"Range": func(ctx context.Context, yield func(error) bool) {
			db.Range(ctx, all(ctx))(func(_ *mvccpb.KeyValue, err error) bool { return yield(err) })
		},
		"Diff": func(ctx context.Context, yield func(error) bool) {
			query.Diff(ctx, query.At{DB: db, Revision: 1}, query.At{DB: db}, all(ctx))(func(_ query.Change, err error) bool { return yield(err) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			n, failed := 0, 0
			iterate(ctx, func(err error) bool {
				if err != nil {
					require.ErrorIs(t, err, context.Canceled)
					failed++
					return true
				}
				require.Zero(t, failed, "goes on after an error")
				if n++; n == 100 {
					cancel()
				}
				return true
			})
			require.Equal(t, 1, failed)
			require.Less(t, n, 30_000)
		})
	}
}

// largeValues is a snapshot with values of 5 and 20 MiB among small ones.
func largeValues(t *testing.T) (string, *snaptest.DB) {
	t.Helper()
	value := func(c string, mib int) string { return strings.Repeat(c, mib<<20) }
	db := snaptest.NewDB().
		Put("k/a/1", "small").
		Put("k/b/1", value("b", 5)).
		Put("k/c/1", value("c", 20)).
		PutLease("k/b/1", value("d", 5), 7).
		Put("k/d/1", "small").
		Delete("k/a/1")
	return db.Write(t, filepath.Join(t.TempDir(), "snapshot.db"), true), db
}

func TestLargeValues(t *testing.T) {
	snaptest.NoLeaks(t)
	path, large := largeValues(t)
	db := openDB(t, path)
	got, err := rangeOf(t.Context(), db, "", clientv3.WithPrefix())
	require.NoError(t, err)
	requireSameKeyValues(t, large.Live(), got, "Range")
	kv := clientv3.NewKVFromKVClient(query.Client{DB: db}, nil)
	for _, want := range large.Live() {
		resp, err := kv.Get(t.Context(), string(want.Key))
		require.NoError(t, err)
		requireSameKeyValues(t, []*mvccpb.KeyValue{want}, resp.Kvs, "Get")
	}
	old, err := kv.Get(t.Context(), "k/b/1", clientv3.WithRev(4))
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("b", 10), string(old.Kvs[0].Value[:10]))
	sizes := []int{5, 5 << 20, 20 << 20, 5 << 20, 5, 0}
	for i, r := range recordsOf(t, db, 0) {
		require.Equal(t, int64(i+2), r.Revision.Main)
		require.Len(t, r.KeyValue.Value, sizes[i])
	}
	for c, err := range query.Diff(t.Context(), query.At{DB: db, Revision: 4}, query.At{DB: db}, request(t.Context(), "k/b", clientv3.WithPrefix())) {
		require.NoError(t, err)
		require.Equal(t, "k/b/1", string(c.Key))
		requireSameKeyValues(t, old.Kvs, []*mvccpb.KeyValue{c.Before}, "Before")
		require.Equal(t, strings.Repeat("d", 10), string(c.After.Value[:10]))
	}
}
