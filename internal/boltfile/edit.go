package boltfile

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"slices"
	"strings"
)

// Edit is one transaction on a database. It writes its changes behind the existing
// pages, and Commit makes them valid. It never reuses a page, so until Commit, and
// after an error, the database is unchanged.
//
// Change a bucket only once: Edit does not read what it has written.
//
// Edit is for small buckets and for one more record in a large one. Its memory is
// bounded by 16 MiB for the bucket that it reads or replaces, and a few branch
// pages.
type Edit struct {
	db      *DB
	ctx     context.Context
	pages   pageWriter
	buckets []Bucket // of the top level, in key order
}

// Edit starts a transaction on a database that Scan has found sound and whose
// top level holds buckets. w writes to the same file, which must not be open
// anywhere else.
func (db *DB) Edit(ctx context.Context, w io.WriterAt, buckets []Bucket) *Edit {
	return &Edit{
		db:      db,
		ctx:     ctx,
		pages:   pageWriter{w: w, pageSize: db.pageSize, next: db.meta.highWater},
		buckets: slices.Clone(buckets),
	}
}

// find returns the index of the bucket in the list, or the one to insert it at.
func (e *Edit) find(name string) (int, bool) {
	return slices.BinarySearchFunc(e.buckets, name, func(b Bucket, name string) int { return strings.Compare(b.Name, name) })
}

// Has reports whether the top level has a bucket of that name.
func (e *Edit) Has(name string) bool {
	_, ok := e.find(name)
	return ok
}

// Records returns the records of a bucket in key order, none if there is no such
// bucket. A bucket within it, or more than 16 MiB, is a *CorruptError.
func (e *Edit) Records(name string) ([]Record, error) {
	at, ok := e.find(name)
	if !ok {
		return nil, nil
	}
	list := &recordList{bucket: name}
	w := e.worker()
	pieces, err := w.pieces(e.buckets[at])
	if err != nil {
		return nil, err
	}
	for i := range pieces {
		if err := w.pieceLeaves(&pieces[i], list); err != nil {
			return nil, err
		}
	}
	return list.records, nil
}

func (e *Edit) worker() *worker { return e.db.walker(e.ctx) }

// Replace replaces the content of a bucket by these records, which must be in key
// order. It creates the bucket if there is none.
func (e *Edit) Replace(name string, records []Record) error {
	at, ok := e.find(name)
	if !ok {
		e.buckets = slices.Insert(e.buckets, at, Bucket{Name: name})
	}
	b := &e.buckets[at]
	var inline leafBuilder
	for _, r := range records {
		if inline.sizeWith(r.Key, r.Value) > e.db.pageSize/inlineShare {
			return e.writeTree(b, records)
		}
		inline.add(0, r.Key, r.Value)
	}
	b.root, b.inline = 0, inline.page()
	putHeader(b.inline, header{flags: flagLeaf, count: uint16(inline.count())})
	return nil
}

// inlineShare: bbolt keeps a bucket inline if it fits into a quarter of a page.
const inlineShare = 4

func (e *Edit) writeTree(b *Bucket, records []Record) error {
	t := newTreeWriter(&e.pages)
	for _, r := range records {
		if err := t.add(0, r.Key, r.Value); err != nil {
			return err
		}
	}
	root, err := t.finish()
	b.root, b.inline = root, nil
	return err
}

// LastKey returns the last key of a bucket, nil if there is none.
func (e *Edit) LastKey(name string) ([]byte, error) {
	if at, ok := e.find(name); ok {
		return e.worker().lastKey(e.buckets[at])
	}
	return nil, nil
}

// Append adds a record behind the last one of a bucket, and creates the bucket if
// there is none. However large the bucket and its last page are, it rewrites only
// the branch pages at the right edge: the record gets a leaf page of its own.
func (e *Edit) Append(name string, r Record) error {
	at, ok := e.find(name)
	if !ok {
		return e.Replace(name, []Record{r})
	}
	b := &e.buckets[at]
	if b.root == 0 {
		records, err := e.Records(name)
		if err != nil {
			return err
		}
		return e.Replace(name, append(records, r))
	}
	edge, err := e.worker().rightEdge(b.root)
	if err != nil {
		return err
	}
	if edge.last == nil {
		return e.Replace(name, []Record{r})
	}
	if bytes.Compare(edge.last, r.Key) >= 0 {
		return fmt.Errorf("append to bucket %q: key %x does not follow %x", name, clip(r.Key), clip(edge.last))
	}
	var leaf leafBuilder
	leaf.add(0, r.Key, r.Value)
	id, err := e.pages.append(flagLeaf, 1, leaf.page())
	if err != nil {
		return err
	}
	b.root, err = e.growEdge(edge, child{id: id, low: r.Key})
	return err
}

// growEdge writes new branch pages for the right edge, with one more page behind
// the last, and returns the root.
func (e *Edit) growEdge(way edge, added child) (root Pgid, err error) {
	level := []child{{id: way.leaf.id, low: way.first}, added}
	for i := len(way.branches) - 1; len(level) > 1 || i >= 0; i-- {
		if i >= 0 {
			n := len(way.branches[i])
			level = append(slices.Clip(way.branches[i][:n-1]), level...)
		}
		packed := branchLevel{pages: &e.pages}
		var above []child
		written := func(c child) error {
			above = append(above, c)
			return nil
		}
		for _, c := range level {
			if err := packed.add(c, written); err != nil {
				return 0, err
			}
		}
		if err := packed.finish(written); err != nil {
			return 0, err
		}
		level = above
	}
	return level[0].id, nil
}

// Commit writes the list of buckets and then both meta pages, so that either may
// be lost. It syncs nothing. The database then has no freelist, as with etcd:
// bbolt finds the free pages when it opens the file.
func (e *Edit) Commit() error {
	m := e.db.meta
	if m.txid >= math.MaxUint64-metaPages { // the server that opens the file needs one more
		return corrupt(0, "meta page: transaction id %d is the last", m.txid)
	}
	t := newTreeWriter(&e.pages)
	for _, b := range e.buckets {
		value := make([]byte, bucketHeaderSize, bucketHeaderSize+len(b.inline))
		order.PutUint64(value, uint64(b.root))
		order.PutUint64(value[8:], b.sequence)
		if err := t.add(elementIsBucket, []byte(b.Name), append(value, b.inline...)); err != nil {
			return err
		}
	}
	root, err := t.finish()
	if err != nil {
		return err
	}
	m.root, m.freelist, m.highWater = root, noFreelist, e.pages.next
	page := make([]byte, e.db.pageSize)
	for range metaPages {
		m.txid++
		at := Pgid(m.txid % metaPages) // where bbolt would write it
		putHeader(page, header{id: at, flags: flagMeta})
		copy(page[pageHeaderSize:], e.db.rawMeta(m))
		if err := writeFull(e.pages.w, page, int64(at)*e.db.pageSize); err != nil {
			return fmt.Errorf("write meta page %d: %w", at, err)
		}
	}
	e.db.meta = m
	return nil
}

// rawMeta returns the meta of the file with the fields of m and a new checksum.
func (db *DB) rawMeta(m meta) []byte {
	b := db.raw
	order.PutUint64(b[16:], uint64(m.root))
	order.PutUint64(b[32:], uint64(m.freelist))
	order.PutUint64(b[40:], uint64(m.highWater))
	order.PutUint64(b[48:], m.txid)
	sum := fnv.New64a()
	_, _ = sum.Write(b[:metaChecksumAt])
	order.PutUint64(b[metaChecksumAt:], sum.Sum64())
	return b[:]
}
