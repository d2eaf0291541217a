package query

import (
	"bytes"
	"context"
	"iter"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// At is the key space of a database at a revision; 0 is the latest.
type At struct {
	DB       *Database
	Revision int64
}

// Change is a key that differs. What is not there is nil.
type Change struct {
	Key           []byte
	Before, After *mvccpb.KeyValue
}

// Diff yields what differs between two key spaces in the range of a request, in key
// order.
func Diff(ctx context.Context, from, to At, req *pb.RangeRequest) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		if err := diff(ctx, from, to, req, func(c Change) bool { return yield(c, nil) }); err != nil {
			yield(Change{}, err)
		}
	}
}

func diff(ctx context.Context, from, to At, req *pb.RangeRequest, yield func(Change) bool) error {
	if err := checkRange(req); err != nil {
		return err
	}
	var next [2]func() (found, error, bool)
	for i, at := range []At{from, to} {
		if err := at.DB.enter(ctx); err != nil {
			return err
		}
		defer at.DB.leave()
		revision, err := at.DB.revision(at.Revision)
		if err != nil {
			return err
		}
		pull, stop := iter.Pull2(at.DB.keys(ctx, newRange(req.Key, req.RangeEnd, revision)))
		defer stop()
		next[i] = pull
	}
	var side [2]found
	var there [2]bool
	advance := func(i int) (err error) {
		side[i], err, there[i] = next[i]()
		return err
	}
	for i := range side {
		if err := advance(i); err != nil {
			return err
		}
	}
	for there[0] || there[1] {
		order := 0
		switch {
		case !there[0]:
			order = 1
		case !there[1]:
			order = -1
		default:
			order = bytes.Compare(side[0].key, side[1].key)
		}
		c := Change{}
		if order != 0 || side[0].record != side[1].record || side[0].size != side[1].size {
			var err error
			if order <= 0 {
				c.Key = bytes.Clone(side[0].key)
				if c.Before, err = from.DB.read(ctx, side[0].revision); err != nil {
					return err
				}
			}
			if order >= 0 {
				c.Key = bytes.Clone(side[1].key)
				if c.After, err = to.DB.read(ctx, side[1].revision); err != nil {
					return err
				}
			}
			if !yield(c) {
				return nil
			}
		}
		if order <= 0 {
			if err := advance(0); err != nil {
				return err
			}
		}
		if order >= 0 {
			if err := advance(1); err != nil {
				return err
			}
		}
	}
	return nil
}
