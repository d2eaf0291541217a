package boltfile

import (
	"bytes"
	"io"
)

// parseBucket parses the value of a bucket element: the number of the root page, or
// 0 and the bucket's only page.
func parseBucket(value []byte, id Pgid, i int) (root Pgid, inline []byte, err error) {
	if len(value) < bucketHeaderSize {
		return 0, nil, corrupt(id, "element %d: bucket of %d bytes", i, len(value))
	}
	root, inline = Pgid(order.Uint64(value)), value[bucketHeaderSize:]
	if root == 0 && len(inline) < pageHeaderSize {
		return 0, nil, corrupt(id, "element %d: inline bucket of %d bytes", i, len(value))
	}
	if root != 0 && len(inline) != 0 {
		return 0, nil, corrupt(id, "element %d: bucket with root page %d and %d bytes inline", i, root, len(inline))
	}
	return root, inline, nil
}

// parseInline checks the page of an inline bucket, which lies in leaf page id.
func (l *Leaf) parseInline(page []byte, id Pgid) error {
	h := parseHeader(page)
	if h.flags != flagLeaf || h.overflow != 0 {
		return corrupt(id, "inline bucket with a page of type %#x and %d overflow pages", h.flags, h.overflow)
	}
	lay, err := l.parse(page, id, int(h.count))
	if err != nil {
		return err
	}
	if lay.next != lay.size {
		return corrupt(id, "inline bucket of %d bytes, its elements need %d", lay.size, lay.next)
	}
	if l.Buckets > 0 {
		return corrupt(id, "inline bucket that holds buckets")
	}
	return nil
}

// topLevel lists the buckets of the top level in key order.
func (w *worker) topLevel() ([]Bucket, error) {
	pieces, err := w.split(w.db.meta.root)
	if err != nil {
		return nil, err
	}
	list := &bucketList{}
	for i := range pieces {
		if err := w.pieceLeaves(&pieces[i], list); err != nil {
			return nil, err
		}
	}
	w.nested = nil // the walk recorded the buckets of the top level, which are visited by name
	return list.buckets, nil
}

// bucketList is the visitor for the top level.
type bucketList struct {
	noVisitor
	buckets []Bucket
	kept    int // bytes
}

// maxTop bounds the bytes of all names and inline buckets of the top level. bbolt
// keeps a bucket inline up to a quarter of a page.
const maxTop = 16 << 20

func (v *bucketList) Leaf(l *Leaf) error {
	for i := range l.Len() {
		if !l.IsBucket(i) {
			return corrupt(l.Page(), "element %d: a record where a bucket should be", i)
		}
		if len(v.buckets) == MaxBuckets {
			return corrupt(l.Page(), "more than %d buckets", MaxBuckets)
		}
		root, inline, err := parseBucket(l.Value(i), l.Page(), i)
		if err != nil {
			return err
		}
		sequence := order.Uint64(l.Value(i)[8:])
		if v.kept += len(l.Key(i)) + len(inline); v.kept > maxTop {
			return corrupt(l.Page(), "element %d: more than %d bytes of names and inline buckets", i, maxTop)
		}
		v.buckets = append(v.buckets, Bucket{
			Name: string(l.Key(i)), Index: len(v.buckets),
			sequence: sequence, root: root, inline: bytes.Clone(inline), page: l.Page(),
		})
	}
	return nil
}

func (v *bucketList) Large(page Pgid, _ []byte, _ *io.SectionReader) error {
	return corrupt(page, "top-level page of more than 4 MiB")
}

// claimFreelist reads the header of the freelist page and claims its pages.
func (w *worker) claimFreelist() (header, error) {
	id := w.db.meta.freelist
	if id == noFreelist {
		return header{}, nil
	}
	h, err := w.header(id, w.db.pageSize)
	if err != nil {
		return h, err
	}
	if h.flags != flagFreelist {
		return h, corrupt(id, "type %#x where the freelist should be", h.flags)
	}
	return h, w.usage.claim(h, id)
}
