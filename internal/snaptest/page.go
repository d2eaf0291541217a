package snaptest

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
)

// Page type flags of bbolt.
const (
	BranchFlag   = 0x01
	LeafFlag     = 0x02
	MetaFlag     = 0x04
	FreelistFlag = 0x10
)

// Sizes in bytes of the parts of a page.
const (
	pageHeaderSize = 16
	elementSize    = 16 // of a branch and of a leaf alike
	metaSize       = 64
)

// PageHeader is the header of a page.
type PageHeader struct {
	ID       uint64
	Flags    uint16
	Count    uint16 // of elements
	Overflow uint32 // pages that follow and belong to it
}

// Meta is the content of a meta page without the checksum, which is computed when a
// Meta is written.
type Meta struct {
	Magic     uint32
	Version   uint32
	PageSize  uint32
	Flags     uint32
	Root      uint64 // page of the root bucket
	Sequence  uint64
	Freelist  uint64 // page of the freelist, all ones for none
	HighWater uint64 // pages
	TxID      uint64
}

// ParseMeta reads meta page 0 or 1 of a file. It takes the page size from meta
// page 0, which must be sound enough for that.
func ParseMeta(data []byte, n int) Meta {
	b := data[n*pageSizeOf(data)+pageHeaderSize:]
	order := binary.NativeEndian
	return Meta{
		Magic: order.Uint32(b), Version: order.Uint32(b[4:]), PageSize: order.Uint32(b[8:]), Flags: order.Uint32(b[12:]),
		Root: order.Uint64(b[16:]), Sequence: order.Uint64(b[24:]), Freelist: order.Uint64(b[32:]),
		HighWater: order.Uint64(b[40:]), TxID: order.Uint64(b[48:]),
	}
}

// put writes m over meta page n, with a correct checksum.
func (m Meta) put(data []byte, n int) {
	b := data[n*pageSizeOf(data)+pageHeaderSize:]
	order := binary.NativeEndian
	order.PutUint32(b, m.Magic)
	order.PutUint32(b[4:], m.Version)
	order.PutUint32(b[8:], m.PageSize)
	order.PutUint32(b[12:], m.Flags)
	order.PutUint64(b[16:], m.Root)
	order.PutUint64(b[24:], m.Sequence)
	order.PutUint64(b[32:], m.Freelist)
	order.PutUint64(b[40:], m.HighWater)
	order.PutUint64(b[48:], m.TxID)
	sum := fnv.New64a()
	_, _ = sum.Write(b[:56])
	order.PutUint64(b[56:], sum.Sum64())
}

// ValidMeta reports whether meta page 0 or 1 is valid for bbolt.
func ValidMeta(data []byte, n int) bool {
	m, end := ParseMeta(data, n), (n+1)*pageSizeOf(data)
	summed := bytes.Clone(data[:end])
	m.put(summed, n)
	return m.Magic == 0xED0CDAED && m.Version == 2 && bytes.Equal(summed, data[:end])
}

// pageSizeOf returns the page size in meta page 0 if it is one, and 4096 if not.
func pageSizeOf(data []byte) int {
	if len(data) >= pageHeaderSize+metaSize {
		size := binary.NativeEndian.Uint32(data[pageHeaderSize+8:])
		if size >= 512 && size <= 64<<10 && size&(size-1) == 0 {
			return int(size)
		}
	}
	return 4096
}

// ParsePage reads the header of page id.
func ParsePage(data []byte, id uint64) PageHeader {
	b := data[id*uint64(pageSizeOf(data)):]
	order := binary.NativeEndian
	return PageHeader{ID: order.Uint64(b), Flags: order.Uint16(b[8:]), Count: order.Uint16(b[10:]), Overflow: order.Uint32(b[12:])}
}

func latestMeta(data []byte) Meta {
	m0, m1 := ParseMeta(data, 0), ParseMeta(data, 1)
	if m1.TxID > m0.TxID {
		return m1
	}
	return m0
}

// Reachable returns the headers of all branch and leaf pages that the later of
// the two meta pages leads to: parents before children, children in key order.
// The file must be sound.
func Reachable(data []byte) []PageHeader {
	var pages []PageHeader
	for _, p := range reachableFrom(data, latestMeta(data).Root) {
		pages = append(pages, p)
		for i := range int(p.Count) {
			if p.Flags == LeafFlag && LeafFlags.get(data, p.ID, i)&1 == 1 {
				if root := bucketRootAt(data, p.ID, i); root != 0 {
					pages = append(pages, reachableFrom(data, root)...)
				}
			}
		}
	}
	return pages
}

// reachableFrom returns the pages of one bucket, without those of buckets in it.
func reachableFrom(data []byte, root uint64) []PageHeader {
	if root == 0 {
		return nil
	}
	p := ParsePage(data, root)
	pages := []PageHeader{p}
	if p.Flags == BranchFlag {
		for i := range int(p.Count) {
			pages = append(pages, reachableFrom(data, BranchPage.get(data, root, i))...)
		}
	}
	return pages
}
