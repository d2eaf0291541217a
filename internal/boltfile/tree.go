package boltfile

import "bytes"

// treeWriter writes the tree of one bucket bottom up: records come in key order
// and fill leaf pages; the references to the pages of each level fill the branch
// pages above it. It holds one leaf page, and two branch pages a level.
type treeWriter struct {
	pages  *pageWriter
	leaf   leafBuilder
	levels []*branchLevel // levels[0] refers to leaf pages
}

func newTreeWriter(pages *pageWriter) *treeWriter {
	t := &treeWriter{pages: pages}
	t.levels = []*branchLevel{{pages: pages}}
	return t
}

// add takes the next element. flags is elementIsBucket or 0.
func (t *treeWriter) add(flags uint32, key, value []byte) error {
	if t.leaf.count() > 0 && t.leaf.sizeWith(key, value) > t.pages.pageSize {
		if err := t.flushLeaf(); err != nil {
			return err
		}
	}
	t.leaf.add(flags, key, value)
	return nil
}

func (t *treeWriter) flushLeaf() error {
	low := bytes.Clone(t.leaf.firstKey())
	id, err := t.pages.append(flagLeaf, t.leaf.count(), t.leaf.page())
	if err != nil {
		return err
	}
	t.leaf.reset()
	return t.refer(0, child{id: id, low: low})
}

// refer adds to a level a reference to a page of the level below.
func (t *treeWriter) refer(level int, c child) error {
	if level == len(t.levels) {
		t.levels = append(t.levels, &branchLevel{pages: t.pages})
	}
	return t.levels[level].add(c, func(written child) error { return t.refer(level+1, written) })
}

// finish writes what is left and returns the root page. A tree without elements
// is one empty leaf page.
func (t *treeWriter) finish() (root Pgid, err error) {
	if t.leaf.count() > 0 || t.levels[0].total == 0 {
		if err := t.flushLeaf(); err != nil {
			return 0, err
		}
	}
	for level := 0; ; level++ {
		l := t.levels[level]
		if l.total == 1 {
			return l.filling[0].id, nil
		}
		if err := l.finish(func(written child) error { return t.refer(level+1, written) }); err != nil {
			return 0, err
		}
	}
}

// leafBuilder collects the elements of a leaf page.
type leafBuilder struct {
	elements []builtElement
	data     []byte
}

type builtElement struct{ flags, keySize, valueSize uint32 }

func (l *leafBuilder) count() int { return len(l.elements) }

func (l *leafBuilder) firstKey() []byte {
	if len(l.elements) == 0 {
		return nil
	}
	return l.data[:l.elements[0].keySize]
}

func (l *leafBuilder) sizeWith(key, value []byte) int64 {
	return int64(dataStart(len(l.elements)+1)) + int64(len(l.data)) + int64(len(key)) + int64(len(value))
}

func (l *leafBuilder) add(flags uint32, key, value []byte) {
	l.elements = append(l.elements, builtElement{flags, uint32(len(key)), uint32(len(value))})
	l.data = append(append(l.data, key...), value...)
}

// page returns the page, with space for its header.
func (l *leafBuilder) page() []byte {
	start := dataStart(len(l.elements))
	page := make([]byte, start, start+len(l.data))
	next := start
	for i, e := range l.elements {
		at := pageHeaderSize + i*elementSize
		order.PutUint32(page[at:], e.flags)
		order.PutUint32(page[at+4:], uint32(next-at))
		order.PutUint32(page[at+8:], e.keySize)
		order.PutUint32(page[at+12:], e.valueSize)
		next += int(e.keySize) + int(e.valueSize)
	}
	return append(page, l.data...)
}

func (l *leafBuilder) reset() { l.elements, l.data = l.elements[:0], l.data[:0] }

// branchLevel packs references to the pages of one level into branch pages. It
// keeps the last full page until the next one has as many elements as a branch page
// must have.
type branchLevel struct {
	pages   *pageWriter
	full    []child
	filling []child
	size    int64 // bytes of the page being filled
	total   int
}

// add takes the next reference, and reports each page that it writes to written.
func (l *branchLevel) add(c child, written func(child) error) error {
	l.total++
	size := l.size + elementSize + int64(len(c.low))
	if len(l.filling) == 0 {
		size += pageHeaderSize
	}
	if size > l.pages.pageSize && len(l.filling) >= minBranchElements {
		if err := l.flush(l.full, written); err != nil {
			return err
		}
		l.full, l.filling = l.filling, l.full[:0]
		size = pageHeaderSize + elementSize + int64(len(c.low))
	}
	l.filling, l.size = append(l.filling, c), size
	return nil
}

// finish writes what is left. At least two references must have been added.
func (l *branchLevel) finish(written func(child) error) error {
	if n := len(l.full); n > 0 && len(l.filling) < minBranchElements {
		if n > minBranchElements {
			l.full, l.filling = l.full[:n-1], append([]child{l.full[n-1]}, l.filling...)
		} else {
			l.full, l.filling = append(l.full, l.filling...), nil
		}
	}
	if err := l.flush(l.full, written); err != nil {
		return err
	}
	return l.flush(l.filling, written)
}

func (l *branchLevel) flush(children []child, written func(child) error) error {
	if len(children) == 0 {
		return nil
	}
	start := dataStart(len(children))
	page := make([]byte, start)
	for i, c := range children {
		at := pageHeaderSize + i*elementSize
		order.PutUint32(page[at:], uint32(len(page)-at))
		order.PutUint32(page[at+4:], uint32(len(c.low)))
		order.PutUint64(page[at+8:], uint64(c.id))
		page = append(page, c.low...)
	}
	id, err := l.pages.append(flagBranch, len(children), page)
	if err != nil {
		return err
	}
	return written(child{id: id, low: children[0].low})
}
