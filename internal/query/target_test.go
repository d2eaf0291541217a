package query_test

import (
	"context"
	"iter"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot/internal/query"
	"etcd.example/snapshot/internal/snaptest/querytest"
)

// target asks a Database.
func target(db *query.Database) querytest.Target {
	request := func(key string, opts []clientv3.OpOption) *pb.RangeRequest {
		op := clientv3.OpGet(key, opts...)
		return &pb.RangeRequest{Key: op.KeyBytes(), RangeEnd: op.RangeBytes(), Revision: op.Rev(), KeysOnly: op.IsKeysOnly()}
	}
	return querytest.Target{
		Latest: db.Current, Compacted: db.Compacted, KV: clientv3.NewKVFromKVClient(query.Client{DB: db}, nil),
		Range: func(ctx context.Context, key string, opts ...clientv3.OpOption) iter.Seq2[*mvccpb.KeyValue, error] {
			return db.Range(ctx, request(key, opts))
		},
		Records: func(ctx context.Context, after int64) iter.Seq2[*mvccpb.KeyValue, error] {
			return querytest.Values(db.Records(ctx, after), func(r query.Record) []*mvccpb.KeyValue { return []*mvccpb.KeyValue{r.KeyValue} })
		},
		Diff: func(ctx context.Context, from, to int64, key string, opts ...clientv3.OpOption) iter.Seq2[*mvccpb.KeyValue, error] {
			changes := query.Diff(ctx, query.At{DB: db, Revision: from}, query.At{DB: db, Revision: to}, request(key, opts))
			return querytest.Values(changes, func(c query.Change) []*mvccpb.KeyValue { return []*mvccpb.KeyValue{c.Before, c.After} })
		},
		HashKV: func(ctx context.Context, revision, compactRevision int64) (uint32, error) {
			h, err := db.HashKV(ctx, revision, compactRevision)
			return h.Hash, err
		},
	}
}
