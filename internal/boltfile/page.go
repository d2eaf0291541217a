package boltfile

import "bytes"

// Leaf is a leaf page, or the page of an inline bucket. Every element has been
// checked: it lies inside the page, and the keys rise strictly. The slices that it
// returns are valid until the visitor returns.
type Leaf struct {
	page  []byte
	id    Pgid   // the page that it is, or lies in
	spans []span // of the elements
	// Buckets is the number of elements that are nested buckets.
	Buckets int
}

// span is the position of an element's key and, directly behind it, its value.
type span struct{ key, value, end uint32 }

// Len returns the number of elements.
func (l *Leaf) Len() int { return len(l.spans) }

// Page returns the number of the page.
func (l *Leaf) Page() Pgid { return l.id }

// Key returns the key of element i.
func (l *Leaf) Key(i int) []byte { return l.page[l.spans[i].key:l.spans[i].value] }

// Value returns the value of element i.
func (l *Leaf) Value(i int) []byte { return l.page[l.spans[i].value:l.spans[i].end] }

// IsBucket reports whether element i is a nested bucket.
func (l *Leaf) IsBucket(i int) bool {
	return l.Buckets > 0 && element(l.page, i).flags&elementIsBucket != 0
}

// Data returns key, value, key, value… of all elements in one piece.
func (l *Leaf) Data() []byte {
	if len(l.spans) == 0 {
		return nil
	}
	return l.page[l.spans[0].key:l.spans[len(l.spans)-1].end]
}

// leafElement is an entry of a leaf page's table. In a branch page's table the
// same 16 bytes are pos, keySize and the child's page number.
type leafElement struct {
	at                             int // offset of the entry, which pos counts from
	flags, pos, keySize, valueSize uint32
}

func element(page []byte, i int) leafElement {
	at := pageHeaderSize + i*elementSize
	e := page[at : at+elementSize]
	return leafElement{at, order.Uint32(e), order.Uint32(e[4:]), order.Uint32(e[8:]), order.Uint32(e[12:])}
}

func dataStart(count int) int { return pageHeaderSize + count*elementSize }

// layout tracks the data of a page's elements, which follow the table and each
// other without gaps.
type layout struct {
	page Pgid
	next int64 // offset of the next element's data
	size int64 // of the page with its overflow pages
}

func startLayout(page Pgid, count int, size int64) (layout, error) {
	l := layout{page: page, next: int64(dataStart(count)), size: size}
	if l.next > size {
		return l, corrupt(page, "table of %d elements exceeds the page", count)
	}
	return l, nil
}

func (l *layout) element(i int, at, pos, keySize, valueSize int64) error {
	if at+pos != l.next {
		return corrupt(l.page, "element %d: data at offset %d, want %d", i, at+pos, l.next)
	}
	if keySize == 0 || keySize > maxKeySize {
		return corrupt(l.page, "element %d: key of %d bytes", i, keySize)
	}
	l.next += keySize + valueSize
	if l.next > l.size {
		return corrupt(l.page, "element %d: ends at offset %d of a page of %d bytes", i, l.next, l.size)
	}
	return nil
}

// finish checks that the page has as many overflow pages as it needs, and no more.
// If the elements fill them to the last byte, older versions of bbolt added one.
func (l *layout) finish(overflow uint32, pageSize int64) error {
	want := (l.next - 1) / pageSize
	if n := int64(overflow); n != want && n != l.next/pageSize {
		return corrupt(l.page, "%d overflow pages for %d bytes, want %d", overflow, l.next, want)
	}
	return nil
}

// parse checks the elements of the leaf in page, which is complete.
func (l *Leaf) parse(page []byte, id Pgid, count int) (layout, error) {
	*l = Leaf{page: page, id: id, spans: l.spans[:0]}
	lay, err := startLayout(id, count, int64(len(page)))
	if err != nil {
		return lay, err
	}
	var previous []byte
	for i := range count {
		e := element(page, i)
		start := lay.next
		if err := lay.element(i, int64(e.at), int64(e.pos), int64(e.keySize), int64(e.valueSize)); err != nil {
			return lay, err
		}
		switch e.flags {
		case 0:
		case elementIsBucket:
			l.Buckets++
		default:
			return lay, corrupt(id, "element %d: flags %#x", i, e.flags)
		}
		key := page[start : start+int64(e.keySize)]
		if i > 0 && bytes.Compare(previous, key) >= 0 {
			return lay, corrupt(id, "element %d: key %x does not follow %x", i, clip(key), clip(previous))
		}
		previous = key
		l.spans = append(l.spans, span{uint32(start), uint32(start) + e.keySize, uint32(lay.next)})
	}
	return lay, nil
}

// checkRange checks that a page starts with the key that it has in its parent
// page, and ends below the next key there. nil means no bound.
//
// bbolt can read a page that starts with a larger key. But when it writes to one,
// it no longer finds the page's place in the parent.
func checkRange(id Pgid, first, last, low, high []byte) error {
	if low != nil && !bytes.Equal(first, low) {
		return corrupt(id, "first key %x is not %x, its key in the parent page", clip(first), clip(low))
	}
	if high != nil && bytes.Compare(last, high) >= 0 {
		return corrupt(id, "last key %x is not below %x, the next key in the parent page", clip(last), clip(high))
	}
	return nil
}

// minBranchElements is how many elements bbolt leaves in a branch page. bbolt relies
// on it when it deletes from the pages below. It also bounds the depth of a tree.
const minBranchElements = 2

// child is a reference from a branch page: page id holds keys from low on, and
// below high unless that is nil.
type child struct {
	id        Pgid
	low, high []byte
}

// parseBranch checks the elements of a branch page and appends its children to
// into. It passes the page's keys through keys.
func (db *DB) parseBranch(page []byte, ref child, h header, into []child, keys func([]byte) []byte) ([]child, error) {
	count := int(h.count)
	if count < minBranchElements {
		return into, corrupt(ref.id, "branch page of %d elements", count)
	}
	lay, err := startLayout(ref.id, count, int64(len(page)))
	if err != nil {
		return into, err
	}
	first := len(into)
	start := lay.next
	for i := range count {
		at := pageHeaderSize + i*elementSize
		e := page[at : at+elementSize]
		if err := lay.element(i, int64(at), int64(order.Uint32(e)), int64(order.Uint32(e[4:])), 0); err != nil {
			return into, err
		}
		id := Pgid(order.Uint64(e[8:]))
		if !db.inUse(id) {
			return into, corrupt(ref.id, "element %d: child page %d, high-water mark %d", i, id, db.meta.highWater)
		}
		into = append(into, child{id: id})
	}
	if err := lay.finish(h.overflow, db.pageSize); err != nil {
		return into, err
	}

	rest := keys(page[start:lay.next])
	children := into[first:]
	for i := range children {
		n := int(order.Uint32(page[pageHeaderSize+i*elementSize+4:]))
		children[i].low, rest = rest[:n:n], rest[n:]
		if i > 0 {
			if bytes.Compare(children[i-1].low, children[i].low) >= 0 {
				return into, corrupt(ref.id, "element %d: key %x does not follow %x", i, clip(children[i].low), clip(children[i-1].low))
			}
			children[i-1].high = children[i].low
		}
	}
	children[count-1].high = ref.high
	return into, checkRange(ref.id, children[0].low, children[count-1].low, ref.low, ref.high)
}

// clip shortens a key for a message.
func clip(key []byte) []byte { return key[:min(len(key), 32)] }
