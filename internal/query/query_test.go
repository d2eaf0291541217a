package query_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot/internal/snaptest/short"
)

var queries = flag.Int("queries", 1, "ask this many times as many random queries")

func (l *live) generator(t *testing.T, rng *rand.Rand) *generator {
	t.Helper()
	all, err := l.Client().Get(t.Context(), "", clientv3.WithPrefix())
	require.NoError(t, err)
	return &generator{Rand: rng, latest: l.db.Current, compacted: l.db.Compacted, kvs: all.Kvs}
}

// A database answers any query as the member did from which it comes.
func TestAnswersLikeTheMember(t *testing.T) {
	for i, d := range databases[:short.Or(len(databases), 3)] {
		t.Run(d.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(15, uint64(i)))
			l := d.make(t, rng)
			g := l.generator(t, rng)
			t.Run("Get", func(t *testing.T) { l.testGet(t, g) })
			t.Run("GetStream", func(t *testing.T) { l.testGetStream(t, g) })
			t.Run("Txn", func(t *testing.T) { l.testTxn(t, g) })
			t.Run("Range", func(t *testing.T) { l.testRange(t, g) })
			t.Run("HashKV", func(t *testing.T) { l.testHashKV(t) })
			t.Run("HashKV of a later compaction", func(t *testing.T) { l.testLaterHashKV(t, rng) })
		})
	}
}

func (l *live) testGet(t *testing.T, g *generator) {
	failed := 0
	for i := range 300 * *queries {
		key, opts := g.get()
		op := clientv3.OpGet(key, opts...)
		want, wantErr := l.Client().Do(t.Context(), op)
		got, gotErr := l.kv.Do(t.Context(), op)
		requireSame(t, (*pb.RangeResponse)(want.Get()), (*pb.RangeResponse)(got.Get()), wantErr, gotErr, fmt.Sprintf("query %d: %+v", i, op))
		if wantErr != nil {
			failed++
		}
	}
	require.NotZero(t, failed)
	require.Less(t, failed, 100**queries, "most queries have an answer")
}

func (l *live) testGetStream(t *testing.T, g *generator) {
	for i := range 100 * *queries {
		key, opts := g.stream()
		stream := func(kv clientv3.KV) (*pb.RangeResponse, error) {
			s, err := kv.GetStream(t.Context(), key, opts...)
			require.NoError(t, err)
			resp, err := clientv3.GetStreamToGetResponse(s)
			return (*pb.RangeResponse)(resp), err
		}
		want, wantErr := stream(l.Client())
		got, gotErr := stream(l.kv)
		requireSame(t, want, got, wantErr, gotErr, fmt.Sprintf("stream %d: %+v", i, clientv3.OpGet(key, opts...)))
	}
}

func (l *live) testTxn(t *testing.T, g *generator) {
	failed, succeeded := 0, 0
	for i := range 150 * *queries {
		op := clientv3.OpTxn(g.txn(3))
		want, wantErr := l.Client().Do(t.Context(), op)
		got, gotErr := l.kv.Do(t.Context(), op)
		requireSame(t, (*pb.TxnResponse)(want.Txn()), (*pb.TxnResponse)(got.Txn()), wantErr, gotErr, fmt.Sprintf("transaction %d: %+v", i, op))
		switch {
		case wantErr != nil:
			failed++
		case want.Txn().Succeeded:
			succeeded++
		}
	}
	require.NotZero(t, failed)
	require.NotZero(t, succeeded)
	require.Less(t, failed+succeeded, 150**queries)
}

// testRange compares what an iterator yields with the answer to a Get.
func (l *live) testRange(t *testing.T, g *generator) {
	for i := range 150 * *queries {
		key, opts := g.get()
		if _, err := clientv3.NewKVFromKVClient(&asked{}, nil).Get(t.Context(), key, opts...); err != nil {
			continue // etcd's client refuses it
		}
		want, wantErr := l.Client().Get(t.Context(), key, opts...)
		got, gotErr := rangeOf(t.Context(), l.db, key, opts...)
		name := fmt.Sprintf("range %d: %+v", i, clientv3.OpGet(key, opts...))
		if wantErr != nil {
			require.ErrorIs(t, gotErr, wantErr, name)
			continue
		}
		require.NoError(t, gotErr, name)
		requireSameKeyValues(t, want.Kvs, got, name)
	}
}
