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
	var keys [2]iter.Seq2[found, error]
	for i, at := range []At{from, to} {
		if err := at.DB.enter(ctx); err != nil {
			return err
		}
		defer at.DB.leave()
		revision, err := at.DB.revision(at.Revision)
		if err != nil {
			return err
		}
		keys[i] = at.DB.keys(ctx, newRange(req.Key, req.RangeEnd, revision))
	}
	changes := batched(differing(keys), pair.size, func(batch []pair) ([]Change, error) {
		return readPairs(ctx, batch, from.DB, to.DB)
	})
	for c, err := range changes {
		if err != nil {
			return err
		}
		if !yield(c) {
			return nil
		}
	}
	return nil
}

// pair is a key on either side, or on one.
type pair struct {
	key   []byte
	side  [2]found
	there [2]bool
}

// size is that of the records in bytes.
func (p pair) size() int64 { return p.side[0].size + p.side[1].size }

func (p pair) differs() bool {
	return p.there[0] != p.there[1] || p.side[0].record != p.side[1].record || p.side[0].size != p.side[1].size
}

// differing yields the keys that differ.
func differing(keys [2]iter.Seq2[found, error]) iter.Seq2[pair, error] {
	return func(yield func(pair, error) bool) {
		var next [2]func() (found, error, bool)
		for i := range keys {
			pull, stop := iter.Pull2(keys[i])
			defer stop()
			next[i] = pull
		}
		var head pair // of both sides, whose keys may differ
		moves := [2]bool{true, true}
		for {
			for i, move := range moves {
				if !move {
					continue
				}
				var err error
				if head.side[i], err, head.there[i] = next[i](); err != nil {
					yield(pair{}, err)
					return
				}
			}
			if !head.there[0] && !head.there[1] {
				return
			}
			order := 0
			switch {
			case !head.there[0]:
				order = 1
			case !head.there[1]:
				order = -1
			default:
				order = bytes.Compare(head.side[0].key, head.side[1].key)
			}
			moves = [2]bool{order <= 0, order >= 0}
			p := pair{}
			for i, move := range moves {
				if move {
					p.key, p.side[i], p.there[i] = head.side[i].key, head.side[i], true
				}
			}
			if p.differs() && !yield(p, nil) {
				return
			}
		}
	}
}

// readPairs reads the records of pairs.
func readPairs(ctx context.Context, batch []pair, dbs ...*Database) ([]Change, error) {
	changes := make([]Change, len(batch))
	for i, p := range batch {
		changes[i].Key = bytes.Clone(p.key)
	}
	for i, db := range dbs {
		var at []int
		var keys []found
		for n, p := range batch {
			if p.there[i] {
				at, keys = append(at, n), append(keys, p.side[i])
			}
		}
		kvs, err := db.readAll(ctx, keys)
		if err != nil {
			return nil, err
		}
		for k, kv := range kvs {
			if c := &changes[at[k]]; i == 0 {
				c.Before = kv
			} else {
				c.After = kv
			}
		}
	}
	return changes, nil
}
