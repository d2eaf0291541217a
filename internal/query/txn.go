package query

import (
	"bytes"
	"cmp"
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"etcd.example/snapshot/internal/fault"
)

// maxTxnOps is how many operations a transaction may have, as with a server that
// is not configured otherwise.
const maxTxnOps = 128

// Txn implements [pb.KVClient]. A transaction with a write in either branch is
// [fault.ErrReadOnly].
func (c Client) Txn(ctx context.Context, req *pb.TxnRequest, _ ...grpc.CallOption) (*pb.TxnResponse, error) {
	if err := checkTxn(req, maxTxnOps); err != nil {
		return nil, err
	}
	if err := c.DB.enter(ctx); err != nil {
		return nil, err
	}
	defer c.DB.leave()
	resp, err := c.DB.txn(ctx, req)
	if err != nil {
		return nil, err
	}
	resp.Header = c.DB.header()
	return resp, nil
}

// checkTxn refuses what a server refuses before it compares, and writes.
func checkTxn(req *pb.TxnRequest, ops int) error {
	n := max(len(req.Compare), len(req.Success), len(req.Failure))
	if n > ops {
		return rpctypes.ErrTooManyOps
	}
	for _, c := range req.Compare {
		if len(c.Key) == 0 {
			return rpctypes.ErrEmptyKey
		}
	}
	for _, branch := range [][]*pb.RequestOp{req.Success, req.Failure} {
		for _, op := range branch {
			var err error
			switch op := op.Request.(type) {
			case *pb.RequestOp_RequestRange:
				err = checkRange(op.RequestRange)
			case *pb.RequestOp_RequestTxn:
				err = checkTxn(op.RequestTxn, ops-n)
			case *pb.RequestOp_RequestPut, *pb.RequestOp_RequestDeleteRange:
				err = fault.ErrReadOnly
			default:
				err = rpctypes.ErrKeyNotFound // as a server answers an empty operation
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// txn leaves the header empty, as a server does in a transaction within another.
func (db *Database) txn(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	resp := &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: true}
	for _, c := range req.Compare {
		holds, err := db.compare(ctx, c)
		if err != nil {
			return nil, err
		}
		if resp.Succeeded = holds; !holds {
			break
		}
	}
	ops := req.Success
	if !resp.Succeeded {
		ops = req.Failure
	}
	for _, op := range ops {
		answer := &pb.ResponseOp{}
		switch op := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			if err := db.checkNegative(op.RequestRange.Revision); err != nil {
				return nil, err
			}
			r, err := db.rangeKeys(ctx, op.RequestRange)
			if err != nil {
				return nil, err
			}
			answer.Response = &pb.ResponseOp_ResponseRange{ResponseRange: r}
		case *pb.RequestOp_RequestTxn:
			t, err := db.txn(ctx, op.RequestTxn)
			if err != nil {
				return nil, err
			}
			answer.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: t}
		}
		resp.Responses = append(resp.Responses, answer)
	}
	return resp, nil
}

// checkNegative refuses a negative revision as a server does in a transaction. A Get
// takes it for the latest one. The compact revision of a server that has never
// compacted is -1.
func (db *Database) checkNegative(revision int64) error {
	if revision < -1 || (revision == -1 && db.Compacted > 0) {
		return db.compacted(revision)
	}
	return nil
}

// compare reports whether a comparison holds for every key of its range. A key that
// is not there has no value and all its numbers are 0.
func (db *Database) compare(ctx context.Context, c *pb.Compare) (bool, error) {
	r := newRange(c.Key, c.RangeEnd, db.Current)
	if r.End == nil {
		kv, err := db.get(ctx, r)
		if err != nil {
			return false, err
		}
		if kv == nil {
			return holdsForNone(c), nil
		}
		return holds(c, kv), nil
	}
	none := true
	for kv, err := range db.values(ctx, db.keys(ctx, r)) {
		if err != nil {
			return false, err
		}
		if none = false; !holds(c, kv) {
			return false, nil
		}
	}
	return !none || holdsForNone(c), nil
}

func holdsForNone(c *pb.Compare) bool {
	return c.Target != pb.Compare_VALUE && holds(c, &mvccpb.KeyValue{})
}

func holds(c *pb.Compare, kv *mvccpb.KeyValue) bool {
	var result int
	switch c.Target {
	case pb.Compare_VALUE:
		result = bytes.Compare(kv.Value, c.GetValue())
	case pb.Compare_CREATE:
		result = cmp.Compare(kv.CreateRevision, c.GetCreateRevision())
	case pb.Compare_MOD:
		result = cmp.Compare(kv.ModRevision, c.GetModRevision())
	case pb.Compare_VERSION:
		result = cmp.Compare(kv.Version, c.GetVersion())
	case pb.Compare_LEASE:
		result = cmp.Compare(kv.Lease, c.GetLease())
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return result == 0
	case pb.Compare_NOT_EQUAL:
		return result != 0
	case pb.Compare_GREATER:
		return result > 0
	case pb.Compare_LESS:
		return result < 0
	}
	return true // as a server decides about what it does not know
}
