package snaptest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
)

// Mutate damages a database file in memory at random, guided by its format, and
// describes how. It works in place; the result shares data's memory and may be
// shorter. It takes any data, even data that it has damaged before. It does not
// change a trailer: see [FixTrailerBytes].
func Mutate(rng *rand.Rand, data []byte) (damaged []byte, desc string) {
	// Mostly a single change, because a second one often hides the first.
	n := 1
	for n < 4 && rng.IntN(4) == 0 {
		n++
	}
	var how []string
	for range n {
		if len(data) == 0 {
			break
		}
		d := &damager{rng: rng, data: data}
		kinds[rng.IntN(len(kinds))](d)
		data = d.data
		how = append(how, d.desc)
	}
	return data, strings.Join(how, "; ")
}

type damager struct {
	rng  *rand.Rand
	data []byte
	desc string
}

// kinds repeats the kinds that are to be more frequent.
var kinds = []func(*damager){
	(*damager).truncate,
	(*damager).flip, (*damager).flip,
	(*damager).scribble,
	(*damager).header, (*damager).header, (*damager).header,
	(*damager).element, (*damager).element, (*damager).element, (*damager).element,
	(*damager).swapElements,
	(*damager).page,
	(*damager).reference, (*damager).reference,
	(*damager).meta, (*damager).meta,
}

func (d *damager) describe(format string, args ...any) { d.desc = fmt.Sprintf(format, args...) }

func (d *damager) truncate() {
	n := d.rng.IntN(len(d.data))
	switch d.rng.IntN(3) {
	case 0:
		n -= n % pageSizeOf(d.data)
	case 1: // still looks as if it had a trailer
		if n -= n % 512; n+32 <= len(d.data) {
			n += 32
		}
	}
	d.describe("truncate %d to %d bytes", len(d.data), n)
	d.data = d.data[:n]
}

func (d *damager) flip() {
	off, bit := d.offset(), d.rng.IntN(8)
	d.data[off] ^= 1 << bit
	d.describe("flip bit %d at %d", bit, off)
}

func (d *damager) scribble() {
	off := d.offset()
	b := d.data[off:min(len(d.data), off+1+d.rng.IntN(64))]
	kind := [...]string{"zeros", "ones", "noise"}[d.rng.IntN(3)]
	for i := range b {
		switch kind {
		case "zeros":
			b[i] = 0
		case "ones":
			b[i] = 0xff
		default:
			b[i] = byte(d.rng.Uint32())
		}
	}
	d.describe("%d bytes of %s at %d", len(b), kind, off)
}

// offset returns any offset, more often at the start of a page, where headers are.
func (d *damager) offset() int {
	if pages := d.pages(); pages > 0 && d.rng.IntN(2) == 0 {
		return d.rng.IntN(pages)*pageSizeOf(d.data) + d.rng.IntN(256)
	}
	return d.rng.IntN(len(d.data))
}

func (d *damager) pages() int { return len(d.data) / pageSizeOf(d.data) }

// pick returns a page with one of the flags, if a few tries find one.
func (d *damager) pick(flags ...uint16) (PageHeader, bool) {
	pages := d.pages()
	for range min(pages, 16) {
		id := uint64(d.rng.IntN(pages))
		p := ParsePage(d.data, id)
		p.ID = id
		for _, f := range flags {
			if p.Flags == f && (f&(BranchFlag|LeafFlag) == 0 || p.Count > 0) {
				return p, true
			}
		}
	}
	return PageHeader{}, false
}

// element picks an element that lies inside the page.
func (d *damager) pickElement(p PageHeader) int {
	return d.rng.IntN(min(int(p.Count), (pageSizeOf(d.data)-pageHeaderSize)/elementSize))
}

// value returns a number that is likely to do damage: near the current one, at a
// limit, or valid elsewhere.
func (d *damager) value(old uint64) uint64 {
	switch d.rng.IntN(4) {
	case 0:
		return old + uint64(d.rng.IntN(9)) - 4
	case 1:
		limits := [...]uint64{
			0, 1, 2, 3, 0x0f, 0x10, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffff0,
			1 << 32, 1<<63 - 1, 1 << 63, 1<<64 - 1, uint64(pageSizeOf(d.data)), uint64(len(d.data)),
		}
		return limits[d.rng.IntN(len(limits))]
	case 2:
		return d.anyPage()
	default:
		return d.rng.Uint64() >> d.rng.IntN(64)
	}
}

// anyPage returns the id of a page, or of the first one beyond the end.
func (d *damager) anyPage() uint64 { return uint64(d.rng.IntN(d.pages() + 1)) }

func (d *damager) setField(f Field, page uint64, element int, value uint64) {
	old := f.get(d.data, page, element)
	f.set(d.data, page, element, value)
	d.describe("page %d element %d: %v from %#x to %#x", page, element, f, old, f.get(d.data, page, element))
}

func (d *damager) header() {
	if d.pages() == 0 {
		d.flip()
		return
	}
	page := uint64(d.rng.IntN(d.pages()))
	f := headerFields[d.rng.IntN(len(headerFields))]
	d.setField(f, page, 0, d.value(f.get(d.data, page, 0)))
}

func (d *damager) element() {
	p, ok := d.pick(LeafFlag, BranchFlag)
	if !ok {
		d.flip()
		return
	}
	fields := leafFields
	if p.Flags == BranchFlag {
		fields = branchFields
	}
	f, i := fields[d.rng.IntN(len(fields))], d.pickElement(p)
	d.setField(f, p.ID, i, d.value(f.get(d.data, p.ID, i)))
}

func (d *damager) swapElements() {
	p, ok := d.pick(LeafFlag, BranchFlag)
	if !ok {
		d.flip()
		return
	}
	i, j := d.pickElement(p), d.pickElement(p)
	a, b := LeafFlags.at(d.data, p.ID, i), LeafFlags.at(d.data, p.ID, j)
	for k := range elementSize {
		d.data[a+k], d.data[b+k] = d.data[b+k], d.data[a+k]
	}
	d.describe("page %d: swap elements %d and %d", p.ID, i, j)
}

// page copies one page over another, unchanged or with the id of the other.
func (d *damager) page() {
	if d.pages() == 0 {
		d.flip()
		return
	}
	from, to := uint64(d.rng.IntN(d.pages())), uint64(d.rng.IntN(d.pages()))
	d.describe("page %d over page %d", from, to)
	copyPage(d.data, from, to)
	if d.rng.IntN(2) == 0 {
		PageID.set(d.data, to, 0, to)
		d.desc += ", id mended"
	}
}

// reference makes a branch element or a bucket refer to another page.
func (d *damager) reference() {
	p, ok := d.pick(BranchFlag, LeafFlag)
	if !ok {
		d.flip()
		return
	}
	i := d.pickElement(p)
	if p.Flags == BranchFlag {
		d.setField(BranchPage, p.ID, i, d.anyPage())
		return
	}
	// Turn any entry into a bucket.
	LeafFlags.set(d.data, p.ID, i, 1)
	at := uint64(LeafFlags.at(d.data, p.ID, i)) + LeafPos.get(d.data, p.ID, i) + LeafKeySize.get(d.data, p.ID, i)
	to := d.anyPage()
	if at+8 <= uint64(len(d.data)) {
		binary.NativeEndian.PutUint64(d.data[at:], to)
	}
	d.describe("page %d element %d: a bucket with root %d", p.ID, i, to)
}

// meta forges one meta page or both, with a correct checksum.
func (d *damager) meta() {
	if len(d.data) < pageSizeOf(d.data)+pageHeaderSize+metaSize {
		d.flip()
		return
	}
	first, last := 0, 1
	switch d.rng.IntN(4) {
	case 0:
		last = 0
	case 1:
		first = 1
	}
	m := ParseMeta(d.data, first)
	which := d.rng.IntN(9)
	switch which {
	case 0:
		m.Root = d.value(m.Root)
	case 1:
		m.HighWater = d.value(m.HighWater)
	case 2:
		m.TxID = d.value(m.TxID)
	case 3:
		m.Freelist = d.value(m.Freelist)
	case 4:
		m.PageSize = uint32(d.value(uint64(m.PageSize)))
	case 5:
		m.PageSize = 1 << d.rng.IntN(32)
	case 6:
		m.Flags = uint32(d.value(uint64(m.Flags)))
	case 7:
		m.Version = uint32(d.value(uint64(m.Version)))
	case 8:
		m.Sequence = d.value(m.Sequence)
	}
	// The other meta page first: page 0 determines where page 1 is.
	for n := last; n >= first; n-- {
		m.put(d.data, n)
	}
	d.describe("forge meta pages %d to %d: %+v", first, last, m)
}
