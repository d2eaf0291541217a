package inspect

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/crc32c"
	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/keyspace"
	"etcd.example/snapshot/internal/schema"
)

// walk reads a database once: it checks the structure, sums all entries, and
// reads the key space and the storage version on the way.
type walk struct {
	strict  bool // every record must agree with its revision key
	counter *keyspace.Counter

	db      *boltfile.DB
	usage   *boltfile.Usage
	buckets []boltfile.Bucket

	mu      sync.Mutex
	pieces  [][]*pieceVisitor // by bucket and piece
	feeds   []*keyspace.Feed  // idle
	version string
}

// Database walks the database in the first size bytes of r. With strict it also
// checks that every record of the key space decodes and agrees with its key.
func Database(ctx context.Context, r io.ReaderAt, size int64, strict bool, scan boltfile.Options) (Status, error) {
	w := newWalk(ctx, strict)
	defer w.counter.Close()
	if err := w.run(ctx, r, size, scan); err != nil {
		return Status{}, err
	}
	return w.status()
}

func newWalk(ctx context.Context, strict bool) *walk {
	return &walk{strict: strict, counter: keyspace.NewCounter(ctx)}
}

// run visits everything once.
func (w *walk) run(ctx context.Context, r io.ReaderAt, size int64, scan boltfile.Options) (err error) {
	if w.db, err = boltfile.Open(r, size); err != nil {
		return err
	}
	scan.Visit = w.visit
	if w.usage, w.buckets, err = w.db.Scan(ctx, scan); err != nil {
		return err
	}
	if w.strict && !slices.ContainsFunc(w.buckets, func(b boltfile.Bucket) bool { return b.Name == schema.BucketMeta }) {
		return fmt.Errorf("%w: page %d: bucket %q is missing from the top level; this is not the database of an etcd v3",
			fault.ErrCorrupt, w.db.Root(), schema.BucketMeta)
	}
	return nil
}

func (w *walk) status() (Status, error) {
	revision, err := w.latest(w.buckets)
	if err != nil {
		return Status{}, err
	}
	live, err := w.counter.Live()
	if err != nil {
		return Status{}, err
	}
	return Status{
		Hash:      w.hash(w.buckets),
		Revision:  revision,
		TotalKey:  live,
		TotalSize: w.db.Size(),
		Version:   w.version,
	}, nil
}

// visit creates the visitor of a piece. Several goroutines call it.
func (w *walk) visit(b boltfile.Bucket, piece int) boltfile.Visitor {
	v := &pieceVisitor{walk: w, number: piece}
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.pieces) <= b.Index {
		w.pieces = append(w.pieces, nil)
	}
	for len(w.pieces[b.Index]) <= piece {
		w.pieces[b.Index] = append(w.pieces[b.Index], nil)
	}
	w.pieces[b.Index][piece] = v

	switch b.Name {
	case schema.BucketMeta:
		return &metaVisitor{v}
	case schema.BucketKey:
		if last := len(w.feeds) - 1; last >= 0 {
			v.feed, w.feeds = w.feeds[last], w.feeds[:last]
		} else {
			v.feed = w.counter.NewFeed()
		}
		v.feed.Begin(piece)
		return &keyVisitor{v}
	}
	return v
}

// hash is the CRC-32C over the name and the entries of each bucket in turn.
func (w *walk) hash(buckets []boltfile.Bucket) uint32 {
	var sum uint32
	for i, b := range buckets {
		sum = crc32c.Update(sum, []byte(b.Name))
		for _, v := range w.pieces[i] {
			sum = crc32c.Combine(sum, v.sum, v.size)
		}
	}
	return sum
}

// latest is the main revision of the last record of the key space. With strict it
// checks that revisions rise from piece to piece; the visitors check each piece.
func (w *walk) latest(buckets []boltfile.Bucket) (int64, error) {
	var last keyspace.Revision
	found := false
	for i, b := range buckets {
		if b.Name != schema.BucketKey {
			continue
		}
		for _, v := range w.pieces[i] {
			if !v.found {
				continue
			}
			if w.strict && found && last.Compare(v.first) >= 0 {
				return 0, fmt.Errorf("%w: revision %v follows %v", fault.ErrCorrupt, v.first, last)
			}
			last, found = v.last, true
		}
	}
	return last.Main, nil
}
