package snaptest

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"testing"
)

// Field is a number on a page, in its header or in an element, in the byte order
// of the machine.
type Field struct {
	name    string
	element bool
	off     int // from the start of the page or of the element
	size    int // bytes
}

// The fields that SetPageField sets.
var (
	PageID       = Field{"page id", false, 0, 8}
	PageFlags    = Field{"page flags", false, 8, 2}
	PageCount    = Field{"page count", false, 10, 2}
	PageOverflow = Field{"page overflow", false, 12, 4}
)

// The fields that SetElementField sets. Positions count from the element.
var (
	BranchPos     = Field{"branch pos", true, 0, 4}
	BranchKeySize = Field{"branch ksize", true, 4, 4}
	BranchPage    = Field{"branch pgid", true, 8, 8}

	LeafFlags     = Field{"leaf flags", true, 0, 4}
	LeafPos       = Field{"leaf pos", true, 4, 4}
	LeafKeySize   = Field{"leaf ksize", true, 8, 4}
	LeafValueSize = Field{"leaf vsize", true, 12, 4}
)

var (
	headerFields = []Field{PageID, PageFlags, PageCount, PageOverflow}
	branchFields = []Field{BranchPos, BranchKeySize, BranchPage}
	leafFields   = []Field{LeafFlags, LeafPos, LeafKeySize, LeafValueSize}
)

// String names the field.
func (f Field) String() string { return f.name }

// at returns the offset of the field of an element, or of the header.
func (f Field) at(data []byte, page uint64, element int) int {
	at := int(page)*pageSizeOf(data) + f.off
	if f.element {
		at += pageHeaderSize + element*elementSize
	}
	return at
}

func (f Field) set(data []byte, page uint64, element int, value uint64) {
	b := data[f.at(data, page, element):][:f.size]
	switch f.size {
	case 2:
		binary.NativeEndian.PutUint16(b, uint16(value))
	case 4:
		binary.NativeEndian.PutUint32(b, uint32(value))
	default:
		binary.NativeEndian.PutUint64(b, value)
	}
}

func (f Field) get(data []byte, page uint64, element int) uint64 {
	b := data[f.at(data, page, element):][:f.size]
	switch f.size {
	case 2:
		return uint64(binary.NativeEndian.Uint16(b))
	case 4:
		return uint64(binary.NativeEndian.Uint32(b))
	default:
		return binary.NativeEndian.Uint64(b)
	}
}

// Edit reads the file at path, lets f change it and writes the result back.
func Edit(tb testing.TB, path string, f func(data []byte) []byte) {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, f(data), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// Flip flips bit 0 to 7 of the byte at off.
func Flip(tb testing.TB, path string, off int64, bit int) {
	tb.Helper()
	Edit(tb, path, func(data []byte) []byte {
		data[off] ^= 1 << bit
		return data
	})
}

// Truncate cuts the file to n bytes.
func Truncate(tb testing.TB, path string, n int64) {
	tb.Helper()
	if err := os.Truncate(path, n); err != nil {
		tb.Fatal(err)
	}
}

// Overwrite writes b over the file from off on.
func Overwrite(tb testing.TB, path string, off int64, b []byte) {
	tb.Helper()
	Edit(tb, path, func(data []byte) []byte {
		if off+int64(len(b)) > int64(len(data)) {
			tb.Fatalf("overwrite %d bytes at %d of %d", len(b), off, len(data))
		}
		copy(data[off:], b)
		return data
	})
}

// Page returns the header of page id.
func Page(tb testing.TB, path string, id uint64) PageHeader {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return ParsePage(data, id)
}

// Pages returns the headers of the pages in use, see [Reachable].
func Pages(tb testing.TB, path string) []PageHeader {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return Reachable(data)
}

// SetPageField sets a field of the header of a page.
func SetPageField(tb testing.TB, path string, page uint64, f Field, value uint64) {
	tb.Helper()
	if f.element {
		tb.Fatalf("%v is not in a page header", f)
	}
	Edit(tb, path, func(data []byte) []byte {
		f.set(data, page, 0, value)
		return data
	})
}

// ElementField returns a field of one element of a branch or leaf page.
func ElementField(tb testing.TB, path string, page uint64, element int, f Field) (value uint64) {
	tb.Helper()
	if !f.element {
		tb.Fatalf("%v is not in an element", f)
	}
	Edit(tb, path, func(data []byte) []byte {
		value = f.get(data, page, element)
		return data
	})
	return value
}

// SetElementField sets a field of one element of a branch or leaf page.
func SetElementField(tb testing.TB, path string, page uint64, element int, f Field, value uint64) {
	tb.Helper()
	if !f.element {
		tb.Fatalf("%v is not in an element", f)
	}
	Edit(tb, path, func(data []byte) []byte {
		f.set(data, page, element, value)
		return data
	})
}

// CopyPage writes page from over page to, including its id.
func CopyPage(tb testing.TB, path string, from, to uint64) {
	tb.Helper()
	Edit(tb, path, func(data []byte) []byte {
		copyPage(data, from, to)
		return data
	})
}

func copyPage(data []byte, from, to uint64) {
	size := uint64(pageSizeOf(data))
	copy(data[to*size:(to+1)*size], data[from*size:(from+1)*size])
}

// SetMeta changes meta page 0 or 1 and gives it a correct checksum.
func SetMeta(tb testing.TB, path string, n int, f func(*Meta)) {
	tb.Helper()
	Edit(tb, path, func(data []byte) []byte {
		m := ParseMeta(data, n)
		f(&m)
		m.put(data, n)
		return data
	})
}

// SetMetas changes both meta pages alike.
func SetMetas(tb testing.TB, path string, f func(*Meta)) {
	tb.Helper()
	SetMeta(tb, path, 0, f)
	SetMeta(tb, path, 1, f)
}

// FixTrailer sets the last 32 bytes to the SHA-256 of the bytes before them, so that
// the checksum does not reveal damage.
func FixTrailer(tb testing.TB, path string) {
	tb.Helper()
	Edit(tb, path, func(data []byte) []byte {
		if len(data)%512 != sha256.Size {
			tb.Fatalf("%s has no trailer: %d bytes", path, len(data))
		}
		FixTrailerBytes(data)
		return data
	})
}

// FixTrailerBytes is FixTrailer in memory. It does not change data whose length
// shows that it has no trailer.
func FixTrailerBytes(data []byte) {
	if len(data)%512 != sha256.Size {
		return
	}
	body := data[:len(data)-sha256.Size]
	sum := sha256.Sum256(body)
	copy(data[len(body):], sum[:])
}

// Leaf returns the page and the element of the entry with the given key in a
// top-level bucket, so that tests can damage exactly that one. The bucket must
// have pages of its own (small ones are inline) and the file must be sound.
func Leaf(tb testing.TB, path, bucket string, key []byte) (page uint64, element int) {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	for _, root := range bucketRoots(data, bucket) {
		for _, p := range reachableFrom(data, root) {
			for i := range int(p.Count) {
				if p.Flags == LeafFlag && string(leafKey(data, p.ID, i)) == string(key) {
					return p.ID, i
				}
			}
		}
	}
	tb.Fatalf("no entry %x in the pages of bucket %q", key, bucket)
	return 0, 0
}

// BucketRoot returns the root page of a top-level bucket, 0 for an inline one.
func BucketRoot(tb testing.TB, path, bucket string) uint64 {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	roots := bucketRoots(data, bucket)
	if len(roots) != 1 {
		tb.Fatalf("bucket %q: got %d entries, want 1", bucket, len(roots))
	}
	return roots[0]
}

func bucketRoots(data []byte, bucket string) (roots []uint64) {
	for _, p := range reachableFrom(data, latestMeta(data).Root) {
		for i := range int(p.Count) {
			if p.Flags == LeafFlag && string(leafKey(data, p.ID, i)) == bucket {
				roots = append(roots, bucketRootAt(data, p.ID, i))
			}
		}
	}
	return roots
}

func leafKey(data []byte, page uint64, i int) []byte {
	at := LeafFlags.at(data, page, i) + int(LeafPos.get(data, page, i))
	return data[at : at+int(LeafKeySize.get(data, page, i))]
}

func bucketRootAt(data []byte, page uint64, i int) uint64 {
	if LeafFlags.get(data, page, i)&1 == 0 {
		panic(fmt.Sprintf("snaptest: element %d of page %d is no bucket", i, page))
	}
	at := LeafFlags.at(data, page, i) + int(LeafPos.get(data, page, i)+LeafKeySize.get(data, page, i))
	return binary.NativeEndian.Uint64(data[at:])
}
