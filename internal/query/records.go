package query

import (
	"context"
	"errors"
	"iter"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"etcd.example/snapshot/internal/keyspace"
)

// Record is a record of the key space.
type Record struct {
	Revision keyspace.Revision
	KeyValue *mvccpb.KeyValue
}

// Records yields every record after a main revision, in revision order, tombstones
// too.
func (db *Database) Records(ctx context.Context, after int64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if err := db.enter(ctx); err != nil {
			yield(Record{}, err)
			return
		}
		defer db.leave()
		if db.records == nil {
			return
		}
		err := db.records.Walk(ctx, keyspace.Revision{Main: max(after, 0)}.Key(), &entries{each: func(e *entry) error {
			if e.revision.Main <= after {
				return nil
			}
			kv, err := e.keyValue()
			if err != nil {
				return err
			}
			if !yield(Record{e.revision, kv}, nil) {
				return errStop
			}
			return nil
		}})
		if err != nil && !errors.Is(err, errStop) {
			yield(Record{}, err)
		}
	}
}

// Range yields the keys of a range in order, as a request with these options asks
// for them.
func (db *Database) Range(ctx context.Context, req *pb.RangeRequest) iter.Seq2[*mvccpb.KeyValue, error] {
	return func(yield func(*mvccpb.KeyValue, error) bool) {
		if err := db.each(ctx, req, func(kv *mvccpb.KeyValue) bool { return yield(kv, nil) }); err != nil {
			yield(nil, err)
		}
	}
}

func (db *Database) each(ctx context.Context, req *pb.RangeRequest, yield func(*mvccpb.KeyValue) bool) error {
	if err := checkRange(req); err != nil {
		return err
	}
	if err := db.enter(ctx); err != nil {
		return err
	}
	defer db.leave()
	if sorts(req) || len(req.RangeEnd) == 0 || req.CountOnly {
		resp, err := db.rangeKeys(ctx, req)
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			if !yield(kv) {
				return nil
			}
		}
		return nil
	}
	revision, err := db.revision(req.Revision)
	if err != nil {
		return err
	}
	keys := filtered(db.keys(ctx, newRange(req.Key, req.RangeEnd, revision)), req)
	n := int64(0)
	for kv, err := range db.showEach(ctx, keys, req) {
		if err != nil {
			return err
		}
		if !yield(kv) {
			return nil
		}
		if n++; n == req.Limit {
			return nil
		}
	}
	return nil
}
