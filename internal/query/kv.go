package query

import (
	"bytes"
	"context"
	"iter"
	"sort"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"etcd.example/snapshot/internal/fault"
)

// Client is etcd's KV service over a database: what its client calls. Writes are
// [fault.ErrReadOnly].
type Client struct{ DB *Database }

var _ pb.KVClient = Client{}

// Put implements [pb.KVClient].
func (Client) Put(context.Context, *pb.PutRequest, ...grpc.CallOption) (*pb.PutResponse, error) {
	return nil, fault.ErrReadOnly
}

// DeleteRange implements [pb.KVClient].
func (Client) DeleteRange(context.Context, *pb.DeleteRangeRequest, ...grpc.CallOption) (*pb.DeleteRangeResponse, error) {
	return nil, fault.ErrReadOnly
}

// Compact implements [pb.KVClient].
func (Client) Compact(context.Context, *pb.CompactionRequest, ...grpc.CallOption) (*pb.CompactionResponse, error) {
	return nil, fault.ErrReadOnly
}

// Range implements [pb.KVClient].
func (c Client) Range(ctx context.Context, req *pb.RangeRequest, _ ...grpc.CallOption) (*pb.RangeResponse, error) {
	if err := checkRange(req); err != nil {
		return nil, err
	}
	if err := c.DB.enter(ctx); err != nil {
		return nil, err
	}
	defer c.DB.leave()
	return c.DB.rangeKeys(ctx, req)
}

// checkRange refuses what a server refuses before it looks at its keys. Of a sort
// option that does not exist etcd's client makes no request.
func checkRange(req *pb.RangeRequest) error {
	if req == nil {
		return rpctypes.ErrInvalidSortOption
	}
	if len(req.Key) == 0 {
		return rpctypes.ErrEmptyKey
	}
	_, order := pb.RangeRequest_SortOrder_name[int32(req.SortOrder)]
	_, target := pb.RangeRequest_SortTarget_name[int32(req.SortTarget)]
	if !order || !target {
		return rpctypes.ErrInvalidSortOption
	}
	return nil
}

// newRange is the range of a request at a revision.
func newRange(key, end []byte, revision int64) Range {
	if len(end) == 0 {
		end = nil
	} else if len(end) == 1 && end[0] == 0 {
		end = []byte{} // all keys from key on
	}
	return Range{Key: key, End: end, Revision: revision}
}

func (db *Database) header() *pb.ResponseHeader { return &pb.ResponseHeader{Revision: db.Current} }

// rangeKeys answers as a server of etcd 3.7 does.
func (db *Database) rangeKeys(ctx context.Context, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	revision, err := db.revision(req.Revision)
	if err != nil {
		return nil, err
	}
	r := newRange(req.Key, req.RangeEnd, revision)
	resp := &pb.RangeResponse{Header: db.header()}
	if req.CountOnly {
		count, err := db.count(ctx, r)
		resp.Count = int64(count)
		return resp, err
	}
	if r.End == nil {
		return db.single(ctx, r, req, resp)
	}
	w, err := db.first(ctx, r)
	if err != nil {
		return nil, err
	}
	resp.Count = int64(w.total)
	limit := req.Limit
	if sorts(req) && (req.SortOrder != pb.RangeRequest_NONE || filters(req)) {
		limit = 0 // the first ones in another order can be anywhere
	}
	list, err := gather(filtered(db.keys(ctx, r), req), limit)
	if err != nil {
		return nil, err
	}
	if sorts(req) && req.SortTarget == pb.RangeRequest_VALUE {
		if resp.Kvs, err = gather(db.values(ctx, all(list)), 0); err != nil {
			return nil, err
		}
		sortBy(resp.Kvs, req, compareValues)
		resp.More = cut(&resp.Kvs, req.Limit)
	} else {
		if sorts(req) {
			sortBy(list, req, compareBy(req.SortTarget))
		}
		resp.More = cut(&list, req.Limit)
		if resp.Kvs, err = db.show(ctx, list, req); err != nil {
			return nil, err
		}
	}
	if req.KeysOnly {
		for _, kv := range resp.Kvs {
			kv.Value = nil
		}
	}
	return resp, nil
}

// count counts the keys of a range.
func (db *Database) count(ctx context.Context, r Range) (int, error) {
	if r.End == nil {
		kv, err := db.get(ctx, r)
		if kv == nil || err != nil {
			return 0, err
		}
		return 1, nil
	}
	db.mu.Lock()
	w := db.window
	db.mu.Unlock()
	if w != nil {
		if part := w.part(r); part != nil {
			return part.total, nil
		}
	}
	w, err := db.collect(ctx, r, 0)
	if err != nil {
		return 0, err
	}
	return w.total, nil
}

// get returns the record of one key, nil if there is none.
func (db *Database) get(ctx context.Context, r Range) (*mvccpb.KeyValue, error) {
	if db.records == nil {
		return nil, nil
	}
	kv, err := db.latest(ctx, r.Key)
	if err != nil || r.Revision == db.Current || (kv != nil && kv.ModRevision <= r.Revision) {
		return kv, err
	}
	w, err := db.first(ctx, r)
	if err != nil || len(w.keys) == 0 {
		return nil, err
	}
	return db.read(ctx, w.keys[0].revision)
}

// single answers a request for one key.
func (db *Database) single(ctx context.Context, r Range, req *pb.RangeRequest, resp *pb.RangeResponse) (*pb.RangeResponse, error) {
	kv, err := db.get(ctx, r)
	if err != nil {
		return nil, err
	}
	if kv == nil {
		return resp, nil
	}
	resp.Count = 1
	if !passes(kv.ModRevision, kv.CreateRevision, req) {
		return resp, nil
	}
	if req.KeysOnly {
		kv.Value = nil
		if indexed(req) {
			kv.Lease = 0
		}
	}
	resp.Kvs = append(resp.Kvs, kv)
	return resp, nil
}

// indexed reports whether a server answers from its index alone, which knows
// nothing of leases.
func indexed(req *pb.RangeRequest) bool {
	return req.KeysOnly && req.SortTarget != pb.RangeRequest_VALUE
}

// show reads the records of the keys that a response shows.
func (db *Database) show(ctx context.Context, keys []found, req *pb.RangeRequest) ([]*mvccpb.KeyValue, error) {
	return gather(db.showEach(ctx, all(keys), req), 0)
}

func (db *Database) showEach(ctx context.Context, keys iter.Seq2[found, error], req *pb.RangeRequest) iter.Seq2[*mvccpb.KeyValue, error] {
	if !req.KeysOnly {
		return db.values(ctx, keys)
	}
	return func(yield func(*mvccpb.KeyValue, error) bool) {
		for f, err := range keys {
			if err != nil {
				yield(nil, err)
				return
			}
			kv := &mvccpb.KeyValue{Key: bytes.Clone(f.key), CreateRevision: f.create, ModRevision: f.revision.Main, Version: f.version}
			if !indexed(req) {
				kv.Lease = f.lease
			}
			if !yield(kv, nil) {
				return
			}
		}
	}
}

func all(keys []found) iter.Seq2[found, error] {
	return func(yield func(found, error) bool) {
		for _, f := range keys {
			if !yield(f, nil) {
				return
			}
		}
	}
}

// passes reports whether a key has the revisions that a request asks for.
func passes(mod, create int64, req *pb.RangeRequest) bool {
	return (req.MaxModRevision == 0 || mod <= req.MaxModRevision) && (req.MinModRevision == 0 || mod >= req.MinModRevision) &&
		(req.MaxCreateRevision == 0 || create <= req.MaxCreateRevision) && (req.MinCreateRevision == 0 || create >= req.MinCreateRevision)
}

func filters(req *pb.RangeRequest) bool {
	return req.MinModRevision != 0 || req.MaxModRevision != 0 || req.MinCreateRevision != 0 || req.MaxCreateRevision != 0
}

func filtered(keys iter.Seq2[found, error], req *pb.RangeRequest) iter.Seq2[found, error] {
	return func(yield func(found, error) bool) {
		for f, err := range keys {
			if (err != nil || passes(f.revision.Main, f.create, req)) && !yield(f, err) {
				return
			}
		}
	}
}

// gather returns the elements, up to one more than limit unless that is 0.
func gather[T any](all iter.Seq2[T, error], limit int64) ([]T, error) {
	var list []T
	for e, err := range all {
		if err != nil {
			return nil, err
		}
		if list = append(list, e); limit > 0 && int64(len(list)) > limit {
			break
		}
	}
	return list, nil
}

// cut cuts a list to limit, and reports whether there was more.
func cut[T any](list *[]T, limit int64) bool {
	if limit <= 0 || int64(len(*list)) <= limit {
		return false
	}
	*list = (*list)[:limit]
	return true
}

// sorts reports whether a response has another order than that of its keys.
func sorts(req *pb.RangeRequest) bool {
	if req.SortTarget == pb.RangeRequest_KEY {
		return req.SortOrder == pb.RangeRequest_DESCEND
	}
	return true
}

// sortBy sorts as a server does, equal elements included.
func sortBy[T any](list []T, req *pb.RangeRequest, compare func(a, b *T) int) {
	var by sort.Interface = &sorter[T]{list, compare}
	if req.SortOrder == pb.RangeRequest_DESCEND {
		by = sort.Reverse(by)
	}
	sort.Sort(by)
}

type sorter[T any] struct {
	list    []T
	compare func(a, b *T) int
}

func (s *sorter[T]) Len() int           { return len(s.list) }
func (s *sorter[T]) Less(i, j int) bool { return s.compare(&s.list[i], &s.list[j]) < 0 }
func (s *sorter[T]) Swap(i, j int)      { s.list[i], s.list[j] = s.list[j], s.list[i] }

func compareValues(a, b **mvccpb.KeyValue) int { return bytes.Compare((*a).Value, (*b).Value) }

func compareBy(target pb.RangeRequest_SortTarget) func(a, b *found) int {
	switch target {
	case pb.RangeRequest_VERSION:
		return func(a, b *found) int { return order(a.version, b.version) }
	case pb.RangeRequest_CREATE:
		return func(a, b *found) int { return order(a.create, b.create) }
	case pb.RangeRequest_MOD:
		return func(a, b *found) int { return order(a.revision.Main, b.revision.Main) }
	}
	return func(a, b *found) int { return bytes.Compare(a.key, b.key) }
}

// order compares as a server does: by the sign of the difference.
func order(a, b int64) int {
	switch d := a - b; {
	case d < 0:
		return -1
	case d > 0:
		return 1
	}
	return 0
}
