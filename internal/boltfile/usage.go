package boltfile

import (
	"iter"
	"math/bits"
	"sync/atomic"
)

// Usage records which pages of a database are in use.
type Usage struct {
	db    *DB
	words []uint64 // a bit a page; set atomically while a scan runs
}

func newUsage(db *DB) *Usage {
	u := &Usage{db: db, words: make([]uint64, (db.meta.highWater+63)/64)}
	u.words[0] = 1<<firstDataPage - 1 // the meta pages
	return u
}

// claim marks the page and its overflow pages as used. They must lie below the
// high-water mark and must not be claimed already: this ends a walk through pages
// that refer to each other in a circle.
func (u *Usage) claim(h header, id Pgid) error {
	if err := u.db.checkExtent(h, id); err != nil {
		return err
	}
	last := id + Pgid(h.overflow)
	for p := id; p <= last; {
		word := p / 64
		mask := ^uint64(0) << (p % 64)
		if end := word*64 + 63; last < end {
			mask &= ^uint64(0) >> (end - last)
		}
		if old := atomic.OrUint64(&u.words[word], mask); old&mask != 0 {
			return corrupt(word*64+Pgid(bits.TrailingZeros64(old&mask)), "referenced more than once")
		}
		p = (word + 1) * 64
	}
	return nil
}

// checkExtent checks what a page says of itself.
func (db *DB) checkExtent(h header, id Pgid) error {
	if h.id != id {
		return corrupt(id, "header has page number %d", h.id)
	}
	if last := id + Pgid(h.overflow); last >= db.meta.highWater {
		return corrupt(id, "%d overflow pages reach beyond the high-water mark %d", h.overflow, db.meta.highWater)
	}
	return nil
}

// claim is that of the usage, if pages are accounted for.
func (s *scan) claim(h header, id Pgid) error {
	if s.usage == nil {
		return s.db.checkExtent(h, id)
	}
	return s.usage.claim(h, id)
}

// Bytes is the size of the pages in use, the meta pages among them.
func (u *Usage) Bytes() int64 {
	pages := int64(0)
	for _, word := range u.words {
		pages += int64(bits.OnesCount64(word))
	}
	return pages * u.db.pageSize
}

// Contains reports whether page id is in use.
func (u *Usage) Contains(id Pgid) bool { return u.words[id/64]&(1<<(id%64)) != 0 }

// Free yields the pages below the high-water mark that are not in use, in
// rising order.
func (u *Usage) Free() iter.Seq[Pgid] {
	return func(yield func(Pgid) bool) {
		for i, word := range u.words {
			for free := ^word; free != 0; free &= free - 1 {
				id := Pgid(i*64 + bits.TrailingZeros64(free))
				if id >= u.db.meta.highWater || !yield(id) {
					return
				}
			}
		}
	}
}

// checkFreelist compares the freelist in the file with the pages that the scan has
// found: each page is either in use or free. A file without one, as etcd writes it
// on Linux, has no list to compare. Call it after the scan, which claims the pages
// of the freelist itself first.
func (u *Usage) checkFreelist(w *worker, h header) error {
	id := u.db.meta.freelist
	size := (int64(h.overflow) + 1) * u.db.pageSize
	count, entries := int64(h.count), int64(pageHeaderSize)
	off := int64(id) * u.db.pageSize
	if h.count == 0xFFFF { // then the first entry is the count
		b, err := w.window.bytes(off+entries, 8, windowSize)
		if err != nil {
			return err
		}
		n := order.Uint64(b)
		if n > uint64(u.db.meta.highWater) {
			return corrupt(id, "freelist of %d pages, high-water mark %d", n, u.db.meta.highWater)
		}
		count, entries = int64(n), entries+8
	}
	if entries+count*8 > size {
		return corrupt(id, "freelist of %d pages exceeds its %d bytes", count, size)
	}

	free := &Usage{db: u.db, words: make([]uint64, len(u.words))}
	for i := range count {
		if i%windowSize == 0 && w.ctx.Err() != nil {
			return w.ctx.Err()
		}
		b, err := w.window.bytes(off+entries+i*8, 8, windowSize)
		if err != nil {
			return err
		}
		p := Pgid(order.Uint64(b))
		if !u.db.inUse(p) {
			return corrupt(id, "freelist names page %d, high-water mark %d", p, u.db.meta.highWater)
		}
		if free.Contains(p) {
			return corrupt(p, "freed twice")
		}
		if u.Contains(p) {
			return corrupt(p, "is free and in use")
		}
		free.words[p/64] |= 1 << (p % 64)
	}
	for p := range u.Free() {
		if !free.Contains(p) {
			return corrupt(p, "is neither free nor in use")
		}
	}
	return nil
}
