package boltfile

import (
	"bytes"
	"context"
	"io"
	"sort"
	"sync"
)

// BucketReader reads a bucket of the top level again and again. It checks each
// page as it reads it, because the file may have changed since the last time. It
// is safe for concurrent use.
//
// The bucket is divided into pieces in key order, the same ones that [DB.Scan]
// shows to visitors.
type BucketReader struct {
	db      *DB
	bucket  Bucket
	pieces  []piece
	workers sync.Pool // of *worker, for single pages
}

// Reader returns a BucketReader of a bucket that Scan has returned. It keeps the
// numbers and first keys of the branch pages above the leaf pages.
func (db *DB) Reader(ctx context.Context, b Bucket) (*BucketReader, error) {
	r := &BucketReader{db: db, bucket: b}
	pieces, err := db.walker(ctx).pieces(b)
	if err != nil {
		return nil, err
	}
	for i := range pieces {
		pieces[i].of, pieces[i].number = &r.bucket, i
	}
	r.pieces = pieces
	return r, nil
}

// Pieces is the number of pieces.
func (r *BucketReader) Pieces() int { return len(r.pieces) }

// Piece returns the number of the piece that holds key, if the bucket does.
func (r *BucketReader) Piece(key []byte) int {
	after := sort.Search(len(r.pieces), func(i int) bool {
		return r.pieces[i].low != nil && bytes.Compare(r.pieces[i].low, key) > 0
	})
	return max(after-1, 0)
}

// Visit shows some pieces to visitors, as Scan does, but checks only their pages.
func (r *BucketReader) Visit(ctx context.Context, numbers []int, opts Options) error {
	s := r.scan(ctx, opts)
	pieces := make([]piece, len(numbers))
	for i, n := range numbers {
		pieces[i] = r.pieces[n]
	}
	return s.run(s.callersWorker(), pieces)
}

// Walk shows the leaf pages to v in key order, on the calling goroutine, from the
// one on that holds key. It does not call v.Done. An error of v ends it.
func (r *BucketReader) Walk(ctx context.Context, key []byte, v Visitor) error {
	w := r.worker(ctx)
	defer r.workers.Put(w)
	for i := r.Piece(key); i < len(r.pieces); i++ {
		if err := w.walkPiece(&r.pieces[i], key, v); err != nil {
			return err
		}
		key = nil
	}
	return nil
}

// Lookup shows the elements with some keys, which must be in rising order, to v. It
// reads each page once, on the calling goroutine.
func (r *BucketReader) Lookup(ctx context.Context, keys [][]byte, v Found) error {
	if len(r.pieces) == 0 {
		return nil
	}
	w := r.worker(ctx)
	defer r.workers.Put(w)
	pick := &picker{keys: keys, Found: v}
	for loaded := -1; pick.next < len(keys); {
		at := r.Piece(keys[pick.next])
		p := &r.pieces[at]
		if !p.branch {
			pick.high = nil // there is no other piece
			if err := w.pieceLeaves(p, pick); err != nil {
				return err
			}
			pick.finish()
			continue
		}
		if at != loaded {
			var err error
			if w.children, err = w.branch(p.child, w.children[:0], w.keep); err != nil {
				return err
			}
			loaded = at
		}
		ref := w.children[w.childOf(keys[pick.next])]
		pick.high = ref.high
		if err := w.leafPage(ref, w.db.pageSize, pick); err != nil {
			return err
		}
		pick.finish()
	}
	return nil
}

// Found sees the elements that [BucketReader.Lookup] finds. They are valid until it
// returns.
type Found interface {
	// Element is called with element at of a leaf page, which has keys[i].
	Element(i int, l *Leaf, at int) error
	// LargeElement is called instead for an element of a leaf page that is too
	// large to be held in memory.
	LargeElement(i int, page Pgid, key []byte, value *io.SectionReader) error
}

// picker is the visitor of the leaf page that holds the next key.
type picker struct {
	Found
	keys [][]byte
	next int
	high []byte // keys of the page are below, unless nil
}

func (p *picker) here() bool {
	return p.next < len(p.keys) && (p.high == nil || bytes.Compare(p.keys[p.next], p.high) < 0)
}

func (p *picker) Leaf(l *Leaf) error {
	for ; p.here(); p.next++ {
		key := p.keys[p.next]
		at := sort.Search(l.Len(), func(i int) bool { return bytes.Compare(l.Key(i), key) >= 0 })
		if at == l.Len() || !bytes.Equal(l.Key(at), key) {
			continue
		}
		if err := p.Element(p.next, l, at); err != nil {
			return err
		}
	}
	return nil
}

func (p *picker) Large(page Pgid, key []byte, value *io.SectionReader) error {
	for p.here() && bytes.Compare(p.keys[p.next], key) < 0 {
		p.next++
	}
	if !p.here() || !bytes.Equal(p.keys[p.next], key) {
		return nil
	}
	p.next++
	return p.LargeElement(p.next-1, page, key, value)
}

// finish skips the keys that the page should hold and does not.
func (p *picker) finish() {
	for p.here() {
		p.next++
	}
}

func (p *picker) Done() error { return nil }

// scan has no usage: a piece is a branch page with leaf pages below, which leads
// into no circle.
func (r *BucketReader) scan(ctx context.Context, opts Options) *scan {
	return newScan(ctx, r.db, nil, opts)
}

func (r *BucketReader) worker(ctx context.Context) *worker {
	s := r.scan(ctx, Options{})
	w, ok := r.workers.Get().(*worker)
	if !ok {
		return s.newWorker(func(int64) {}) // not callersWorker: it would keep this call's context
	}
	w.scan = s
	w.window.data = w.window.data[:0] // the file may have changed
	return w
}

// walkPiece shows the leaf pages of a piece from the one on that holds key.
func (w *worker) walkPiece(p *piece, key []byte, v Visitor) error {
	if !p.branch {
		return w.pieceLeaves(p, v)
	}
	var err error
	if w.children, err = w.branch(p.child, w.children[:0], w.keep); err != nil {
		return err
	}
	return w.leaves(w.childOf(key), v)
}

// childOf returns the index of the child of the branch page at work that holds key.
func (w *worker) childOf(key []byte) int {
	after := sort.Search(len(w.children), func(i int) bool { return bytes.Compare(w.children[i].low, key) > 0 })
	return max(after-1, 0)
}
