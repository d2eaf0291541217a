package query_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/query"
	"etcd.example/snapshot/internal/snaptest"
)

// fill writes n random transactions.
func fill(t *testing.T, rng *rand.Rand, cli *clientv3.Client, n int) {
	t.Helper()
	ctx := t.Context()
	lease, err := cli.Grant(ctx, 3600)
	require.NoError(t, err)
	key := func() string { return fmt.Sprintf("k/%c/%d", 'a'+rng.IntN(4), rng.IntN(30)) }
	value := func() string { return string(snaptest.Opaque(rng.IntN(300))) }
	for range n {
		switch rng.IntN(8) {
		case 0:
			_, err = cli.Delete(ctx, key())
		case 1:
			k := key()
			_, err = cli.Delete(ctx, k[:3], clientv3.WithRange(k))
		case 2:
			_, err = cli.Put(ctx, key(), value(), clientv3.WithLease(lease.ID))
		case 3:
			_, err = cli.Txn(ctx).Then(clientv3.OpPut("k/x", value()), clientv3.OpPut(key(), value()), clientv3.OpDelete("k/y")).Commit()
		default:
			_, err = cli.Put(ctx, key(), value())
		}
		require.NoError(t, err)
	}
}

func randomOp(rng *rand.Rand, latest int64) clientv3.Op {
	key := fmt.Sprintf("k/%c/%d", 'a'+rng.IntN(5), rng.IntN(32))
	var opts []clientv3.OpOption
	switch rng.IntN(5) {
	case 0:
		opts = append(opts, clientv3.WithPrefix())
		key = key[:1+rng.IntN(len(key))]
	case 1:
		opts = append(opts, clientv3.WithFromKey())
	case 2:
		opts = append(opts, clientv3.WithRange(fmt.Sprintf("k/%c/%d", 'a'+rng.IntN(5), rng.IntN(32))))
	}
	if rng.IntN(3) == 0 {
		opts = append(opts, clientv3.WithRev(rng.Int64N(latest+20)))
	}
	if rng.IntN(3) == 0 {
		opts = append(opts, clientv3.WithLimit(rng.Int64N(20)))
	}
	if rng.IntN(3) == 0 {
		opts = append(opts, clientv3.WithSort(clientv3.SortTarget(rng.IntN(5)), clientv3.SortOrder(rng.IntN(3))))
	}
	if rng.IntN(6) == 0 {
		opts = append(opts, clientv3.WithKeysOnly())
	}
	if rng.IntN(8) == 0 {
		opts = append(opts, clientv3.WithCountOnly())
	}
	if rng.IntN(8) == 0 {
		opts = append(opts, clientv3.WithSerializable())
	}
	if rng.IntN(8) == 0 {
		opts = append(opts, clientv3.WithMinModRev(rng.Int64N(latest)))
	}
	if rng.IntN(8) == 0 {
		opts = append(opts, clientv3.WithMaxModRev(rng.Int64N(latest)))
	}
	if rng.IntN(8) == 0 {
		opts = append(opts, clientv3.WithMinCreateRev(rng.Int64N(latest)))
	}
	if rng.IntN(8) == 0 {
		opts = append(opts, clientv3.WithMaxCreateRev(rng.Int64N(latest)))
	}
	return clientv3.OpGet(key, opts...)
}

// A snapshot answers any query as the member did of which it was taken.
func TestAnswersLikeTheMember(t *testing.T) {
	rng := rand.New(rand.NewPCG(15, 4))
	e := snaptest.Start(t)
	fill(t, rng, e.Client(), 300)
	_, err := e.Client().Compact(t.Context(), 100, clientv3.WithCompactPhysical())
	require.NoError(t, err)
	fill(t, rng, e.Client(), 300)
	path := filepath.Join(t.TempDir(), "db")
	require.NoError(t, snapshot.New().Save(t.Context(), e.ClientConfig(), path))
	db, err := query.Open(t.Context(), path, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	kv := clientv3.NewKVFromKVClient(query.Client{DB: db}, nil)
	for i := range 2000 {
		op := randomOp(rng, db.Current)
		want, wantErr := e.Client().Do(context.Background(), op)
		got, gotErr := kv.Do(context.Background(), op)
		name := fmt.Sprintf("query %d: %+v", i, op)
		if wantErr != nil {
			require.ErrorIs(t, gotErr, wantErr, name)
			continue
		}
		require.NoError(t, gotErr, name)
		w, g := want.Get(), got.Get()
		require.Equal(t, w.Header.Revision, g.Header.Revision, name)
		require.Equal(t, w.Count, g.Count, name)
		require.Equal(t, w.More, g.More, name)
		require.Len(t, g.Kvs, len(w.Kvs), name)
		for j := range w.Kvs {
			require.Equal(t, w.Kvs[j].String(), g.Kvs[j].String(), name)
		}
	}
	for rev := db.Compacted; rev <= db.Current; rev++ {
		want, err := e.Client().HashKV(t.Context(), e.Endpoint(), rev)
		require.NoError(t, err)
		got, err := db.HashKV(t.Context(), rev, want.CompactRevision)
		if want.CompactRevision < db.Compacted { // the member has kept a hash from before its compaction
			require.ErrorIs(t, err, fault.ErrCompacted)
			continue
		}
		require.NoError(t, err, rev)
		require.Equal(t, want.Hash, got.Hash, "revision %d, compacted %d", rev, want.CompactRevision)
	}
}
