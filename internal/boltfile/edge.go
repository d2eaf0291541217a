package boltfile

import (
	"bytes"
	"context"
)

// LastKey returns the last key of a bucket of the top level, nil if there is none.
// It reads a handful of pages and checks only those. The errors are those of Scan.
func (db *DB) LastKey(ctx context.Context, bucket string) ([]byte, error) {
	w := db.walker(ctx)
	buckets, err := w.topLevel()
	if err != nil {
		return nil, err
	}
	for _, b := range buckets {
		if b.Name == bucket {
			return w.lastKey(b)
		}
	}
	return nil, nil
}

// walker returns a worker that belongs to no scan. It records the pages that it
// has seen, which ends a walk in a circle.
func (db *DB) walker(ctx context.Context) *worker {
	return newScan(ctx, db, newUsage(db), Options{}).callersWorker()
}

// lastKey returns the last key of a bucket, nil if there is none.
func (w *worker) lastKey(b Bucket) ([]byte, error) {
	if b.root != 0 {
		edge, err := w.rightEdge(b.root)
		return edge.last, err
	}
	if err := w.leaf.parseInline(b.inline, b.page); err != nil || w.leaf.Len() == 0 {
		return nil, err
	}
	return bytes.Clone(w.leaf.Key(w.leaf.Len() - 1)), nil
}

// edge is the path from the root of a tree to its last leaf page.
type edge struct {
	branches    [][]child // from the root down
	leaf        child
	first, last []byte // keys in the leaf page, nil if it is empty
}

func (w *worker) rightEdge(root Pgid) (edge, error) {
	way := edge{leaf: child{id: root}}
	for {
		if !w.db.inUse(way.leaf.id) {
			return edge{}, corrupt(root, "root of a bucket, high-water mark %d", w.db.meta.highWater)
		}
		h, err := w.header(way.leaf.id, w.db.pageSize)
		if err != nil {
			return edge{}, err
		}
		if h.flags == flagLeaf {
			if h.count > 0 {
				way.first, err = w.elementKey(way.leaf.id, h, 0)
			}
			if h.count > 0 && err == nil {
				way.last, err = w.elementKey(way.leaf.id, h, int(h.count)-1)
			}
			return way, err
		}
		children, err := w.branch(way.leaf, nil, bytes.Clone)
		if err != nil {
			return edge{}, err
		}
		way.branches = append(way.branches, children)
		way.leaf = children[len(children)-1]
	}
}

// elementKey reads the key of one element of a leaf page, and not the rest of the
// page, which can be large.
func (w *worker) elementKey(id Pgid, h header, i int) ([]byte, error) {
	size := (int64(h.overflow) + 1) * w.db.pageSize
	off, at := int64(id)*w.db.pageSize, int64(dataStart(i))
	if at+elementSize > size || off+size > w.db.Size() {
		return nil, corrupt(id, "table of %d elements, page of %d bytes, high-water mark %d", h.count, size, w.db.meta.highWater)
	}
	b, err := w.window.bytes(off+at, elementSize, 0)
	if err != nil {
		return nil, err
	}
	if order.Uint32(b)&elementIsBucket != 0 {
		return nil, corrupt(id, "element %d: a bucket where a record should be", i)
	}
	pos, keySize := int64(order.Uint32(b[4:])), int64(order.Uint32(b[8:]))
	if keySize == 0 || keySize > maxKeySize || at+pos+keySize > size {
		return nil, corrupt(id, "element %d: key of %d bytes at offset %d of a page of %d bytes", i, keySize, at+pos, size)
	}
	b, err = w.window.bytes(off+at+pos, keySize, 0)
	return bytes.Clone(b), err
}
