package boltfile

import (
	"bytes"
	"io"
)

// worker walks pages on one goroutine.
type worker struct {
	*scan
	window   window
	leaf     Leaf
	children []child // of the piece's branch page
	keys     []byte  // theirs
}

func (s *scan) newWorker(counted func(n int64)) *worker {
	return &worker{scan: s, window: window{r: s.db.r, end: s.db.Size(), counted: counted}}
}

// header reads the header of a page and, in the same read, ahead bytes of what
// follows.
func (w *worker) header(id Pgid, ahead int64) (header, error) {
	if err := w.ctx.Err(); err != nil {
		return header{}, err
	}
	b, err := w.window.bytes(int64(id)*w.db.pageSize, pageHeaderSize, ahead)
	if err != nil {
		return header{}, err
	}
	return parseHeader(b), nil
}

// read returns a claimed page together with its overflow pages.
func (w *worker) read(id Pgid, h header) ([]byte, error) {
	n := (int64(h.overflow) + 1) * w.db.pageSize
	return w.window.bytes(int64(id)*w.db.pageSize, n, n)
}

// branch reads and claims a branch page and appends its children to into. It passes
// the page's keys through keys.
func (w *worker) branch(ref child, into []child, keys func([]byte) []byte) ([]child, error) {
	h, err := w.header(ref.id, w.db.pageSize)
	if err != nil {
		return into, err
	}
	if h.flags != flagBranch {
		return into, corrupt(ref.id, "type %#x where a branch page should be", h.flags)
	}
	if err := w.claim(h, ref.id); err != nil {
		return into, err
	}
	if n := (int64(h.overflow) + 1) * w.db.pageSize; n > maxBranch {
		return into, corrupt(ref.id, "branch page of %d bytes", n)
	}
	page, err := w.read(ref.id, h)
	if err != nil {
		return into, err
	}
	return w.db.parseBranch(page, ref, h, into, keys)
}

// maxKeptKeys bounds the bytes of the branch keys that a split keeps. The keys of
// an etcd have 18 bytes, so it is enough for a database of a terabyte.
const maxKeptKeys = 64 << 20

// maxLevel bounds the pages of a level above the leaf pages, which a split keeps
// too. A page of 4 KiB refers to 60 or more, so it is enough for a terabyte as
// well.
const maxLevel = 1 << 22

// split cuts the tree below root into pieces. It reads the branch pages down to
// the last level but one: the workers read the pages below, nearly the whole file.
// Each round claims the pages of a level, so it ends.
func (w *worker) split(root Pgid) ([]piece, error) {
	if !w.db.inUse(root) {
		return nil, corrupt(root, "root of a bucket, high-water mark %d", w.db.meta.highWater)
	}
	h, err := w.header(root, w.db.pageSize)
	if err != nil {
		return nil, err
	}
	level := []child{{id: root}}
	if h.flags == flagLeaf {
		return []piece{{child: level[0]}}, nil
	}
	for {
		last, err := w.aboveLeaves(level[0])
		if err != nil {
			return nil, err
		}
		if last {
			break
		}
		var below []child
		kept := 0
		for _, ref := range level {
			if below, err = w.branch(ref, below, func(keys []byte) []byte {
				kept += len(keys)
				return bytes.Clone(keys)
			}); err != nil {
				return nil, err
			}
			if kept > maxKeptKeys {
				return nil, corrupt(ref.id, "more than %d bytes of branch keys on one level", maxKeptKeys)
			}
			if most := min(w.db.meta.highWater, maxLevel); len(below) > int(most) {
				return nil, corrupt(ref.id, "more than %d pages on the level below, high-water mark %d", most, w.db.meta.highWater)
			}
		}
		level = below
	}
	pieces := make([]piece, len(level))
	for i, ref := range level {
		pieces[i] = piece{child: ref, branch: true}
	}
	return pieces, nil
}

// aboveLeaves reports whether the first child of a branch page is a leaf page. The
// workers check that the others are of the same kind.
func (w *worker) aboveLeaves(ref child) (bool, error) {
	h, err := w.header(ref.id, w.db.pageSize)
	if err != nil {
		return false, err
	}
	if h.flags != flagBranch || h.count == 0 {
		return true, nil // the worker that reads it reports what is wrong
	}
	b, err := w.window.bytes(int64(ref.id)*w.db.pageSize+pageHeaderSize, elementSize, 0)
	if err != nil {
		return false, err
	}
	first := Pgid(order.Uint64(b[8:]))
	if !w.db.inUse(first) {
		return true, nil
	}
	h, err = w.header(first, w.db.pageSize)
	return h.flags != flagBranch, err
}

// keep copies the keys of the current branch page.
func (w *worker) keep(keys []byte) []byte {
	w.keys = append(w.keys[:0], keys...)
	return w.keys
}

func (w *worker) piece(p *piece) error {
	var v Visitor
	if p.of != nil {
		v = w.visit(*p.of, p.number)
	}
	if v == nil {
		v = noVisitor{}
	}
	if err := w.pieceLeaves(p, v); err != nil {
		return err
	}
	return v.Done()
}

func (w *worker) pieceLeaves(p *piece, v Visitor) error {
	switch {
	case p.inline != nil:
		if err := w.leaf.parseInline(p.inline, p.id); err != nil {
			return err
		}
		return v.Leaf(&w.leaf)
	case !p.branch:
		return w.leafPage(p.child, w.db.pageSize, v)
	}
	var err error
	if w.children, err = w.branch(p.child, w.children[:0], w.keep); err != nil {
		return err
	}
	return w.leaves(0, v)
}

// leaves shows the leaf pages of the branch page at work to v, from a child on.
func (w *worker) leaves(first int, v Visitor) error {
	var run int64 // bytes of neighbours to read together
	for i := first; i < len(w.children); i++ {
		ref := w.children[i]
		if run <= 0 {
			run = w.runFrom(i)
		}
		if err := w.leafPage(ref, run, v); err != nil {
			return err
		}
		if i+1 < len(w.children) {
			run -= int64(w.children[i+1].id-ref.id) * w.db.pageSize
		}
	}
	return nil
}

// runFrom returns how many bytes from child i on hold children that are adjacent in
// the file, except for small gaps. Overflow pages look like gaps.
func (w *worker) runFrom(i int) int64 {
	const maxGap = 8
	start := w.children[i].id
	end := start + 1
	for _, next := range w.children[i+1:] {
		if next.id < end || next.id > end+maxGap || int64(next.id+1-start)*w.db.pageSize > windowSize {
			break
		}
		end = next.id + 1
	}
	return int64(end-start) * w.db.pageSize
}

func (w *worker) leafPage(ref child, ahead int64, v Visitor) error {
	h, err := w.header(ref.id, ahead)
	if err != nil {
		return err
	}
	if h.flags != flagLeaf {
		return corrupt(ref.id, "type %#x where a leaf page should be", h.flags)
	}
	if err := w.claim(h, ref.id); err != nil {
		return err
	}
	if (int64(h.overflow)+1)*w.db.pageSize > maxHeldLeaf {
		return w.largeLeaf(ref, h, v)
	}
	page, err := w.read(ref.id, h)
	if err != nil {
		return err
	}
	lay, err := w.leaf.parse(page, ref.id, int(h.count))
	if err != nil {
		return err
	}
	if err := lay.finish(h.overflow, w.db.pageSize); err != nil {
		return err
	}
	if n := w.leaf.Len(); n > 0 {
		if err := checkRange(ref.id, w.leaf.Key(0), w.leaf.Key(n-1), ref.low, ref.high); err != nil {
			return err
		}
	} else if ref.low != nil {
		return corrupt(ref.id, "leaf page without elements below a branch page")
	}
	for i := 0; w.leaf.Buckets > 0 && i < w.leaf.Len(); i++ {
		if w.leaf.IsBucket(i) {
			if err := w.nestedBucket(w.leaf.Value(i), ref.id, i); err != nil {
				return err
			}
		}
	}
	return v.Leaf(&w.leaf)
}

// nestedBucket records the bucket in element i of leaf page id for later, or
// checks it at once if it is inline.
func (w *worker) nestedBucket(value []byte, id Pgid, i int) error {
	root, inline, err := parseBucket(value, id, i)
	if err != nil {
		return err
	}
	if root == 0 {
		var l Leaf
		return l.parseInline(inline, id)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.nested) > int(w.db.meta.highWater) {
		return corrupt(id, "more nested buckets than pages")
	}
	w.nested = append(w.nested, root)
	return nil
}

type noVisitor struct{}

func (noVisitor) Leaf(*Leaf) error                            { return nil }
func (noVisitor) Large(Pgid, []byte, *io.SectionReader) error { return nil }
func (noVisitor) Done() error                                 { return nil }
