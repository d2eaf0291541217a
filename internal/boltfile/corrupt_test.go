package boltfile_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"etcd.example/snapshot/internal/boltfile"
)

// Each kind of damage is refused, with the page and the reason.
func TestCorrupt(t *testing.T) {
	plain := build(t, 4096, false, fill("a", 3000, 100), fill("b", 40, 9000))
	inline := build(t, 4096, false, fill("a", 2, 10))
	withNested := build(t, 4096, false, nested)
	synced := build(t, 4096, true, fill("a", 3000, 100), drop("a", 3000, 2))

	for _, tt := range []struct {
		name   string
		base   []byte
		damage func(m *image)
		want   string
	}{
		{"first meta calls itself otherwise", plain, func(m *image) { m.set64(0, headID, 7) }, "page 0: meta page calls itself page 7"},
		{"second meta is of another type", plain, func(m *image) { m.set16(1, headFlags, typeLeaf) }, "page 1: meta page calls itself page 1 of type 0x2"},
		{"page size 0", plain, func(m *image) { m.set32(0, metaPageSize, 0); m.sum(0) }, "page 0: meta page: page size 0"},
		{"page size 3000", plain, func(m *image) { m.set32(0, metaPageSize, 3000); m.sum(0) }, "page 0: meta page: page size 3000"},
		{"page sizes differ", plain, func(m *image) {
			m.set32(1, metaPageSize, 8192)
			m.set64(1, metaTxid, 1<<40)
			m.sum(1)
		}, "page 1: meta page: page size 8192 bytes, the other has 4096"},
		{"no pages", plain, live(metaHighWater, 2), "high-water mark 2"},
		{"impossible high-water mark", plain, live(metaHighWater, math.MaxUint64), "pages are not supported"},
		{"root is a meta page", plain, live(metaRoot, 1), "root page 1"},
		{"root beyond the end", plain, live(metaRoot, 1<<50), "root page 1125899906842624"},
		{"freelist beyond the end", plain, live(metaFreelist, 1<<50), "freelist page 1125899906842624"},

		{"page calls itself otherwise", plain, leafN(5, headID, 8, 99), "calls itself 99"},
		{"leaf of no type", plain, leafN(5, headFlags, 2, 0), "type 0x0 where a leaf page should be"},
		{"leaf of two types", plain, leafN(5, headFlags, 2, 3), "type 0x3 where a leaf page should be"},
		{"leaf becomes branch", plain, leafN(5, headFlags, 2, typeBranch), "type 0x1 where a leaf page should be"},
		{"leaf becomes meta", plain, leafN(5, headFlags, 2, 4), "type 0x4 where a leaf page should be"},
		{"leaf counts too many", plain, leafN(5, headCount, 2, 4000), "table of 4000 elements exceeds the page"},
		{"leaf counts one more", plain, func(m *image) {
			id := m.find(typeLeaf)[5]
			m.set16(id, headCount, uint16(m.count(id)+1))
		}, "element 0: data at offset"},
		{"leaf overflows beyond the end", plain, leafN(5, headOverflow, 4, math.MaxUint32), "reach beyond the high-water mark"},
		{"leaf overflows into its neighbour", plain, leafN(5, headOverflow, 4, 1), "1 overflow pages for 2048 bytes, want 0"},
		{"position", plain, leafN(5, leafPos(3), 4, 0xFFFFFFFF), "element 3: data at offset"},
		{"position overlaps", plain, leafN(5, leafPos(3), 4, 0), "element 3: data at offset"},
		{"key without bytes", plain, leafN(5, leafKey(3), 4, 0), "element 3: key of 0 bytes"},
		{"key too long", plain, leafN(5, leafKey(3), 4, 40_000), "element 3: key of 40000 bytes"},
		{"value beyond the page", plain, leafN(5, leafValue(3), 4, 1<<31), "element 3: ends at offset"},
		{"value one longer", plain, func(m *image) {
			id := m.find(typeLeaf)[5]
			m.set32(id, leafValue(3), m.get32(id, leafValue(3))+1)
		}, "element 4: data at offset"},
		{"unknown flag", plain, leafN(5, leafFlags(3), 4, 2), "element 3: flags 0x2"},
		{"record becomes bucket", plain, leafN(5, leafFlags(3), 4, 1), "element 3:"},
		{"keys swapped", plain, func(m *image) {
			page := m.page(m.find(typeLeaf)[5])
			i := bytes.Index(page, []byte("key-"))
			page[i+10]++
		}, "does not follow"},
		{"key above the next page's", plain, func(m *image) {
			id := m.find(typeLeaf)[5]
			page := m.page(id)
			i := bytes.LastIndex(page, []byte("key-"))
			page[i+4] = '9'
		}, "the next key in the parent page"},
		{"key below its page's", plain, func(m *image) {
			page := m.page(m.find(typeLeaf)[5])
			i := bytes.Index(page, []byte("key-"))
			page[i+4] = '!'
		}, "its key in the parent page"},

		{"branch without elements", plain, branchN(headCount, 2, 0), "branch page without elements"},
		{"branch counts too many", plain, branchN(headCount, 2, 4000), "table of 4000 elements exceeds the page"},
		{"branch position", plain, branchN(branchPos(1), 4, 5), "element 1: data at offset"},
		{"branch key without bytes", plain, branchN(branchKey(1), 4, 0), "element 1: key of 0 bytes"},
		{"child is a meta page", plain, branchN(branchPgid(1), 8, 0), "element 1: child page 0"},
		{"child beyond the end", plain, branchN(branchPgid(1), 8, 1<<40), "element 1: child page 1099511627776"},
		{"child twice", plain, func(m *image) {
			id := m.find(typeBranch)[0]
			m.set64(id, branchPgid(1), m.get64(id, branchPgid(2)))
		}, "parent page"},
		{"child is the page itself", plain, func(m *image) {
			id := m.find(typeBranch)[0]
			m.set64(id, branchPgid(1), uint64(id))
		}, "where a leaf page should be"},
		{"first child is the page itself", plain, func(m *image) {
			id := m.find(typeBranch)[0]
			m.set64(id, branchPgid(0), uint64(id))
		}, "referenced more than once"},
		{"branch keys swapped", plain, func(m *image) {
			page := m.page(m.find(typeBranch)[0])
			i := bytes.LastIndex(page, []byte("key-"))
			copy(page[i:], "aaaaa")
		}, "does not follow"},
		{"huge branch", plain, func(m *image) {
			id := m.find(typeBranch)[0]
			free := m.pages()
			m.b = append(m.b, make([]byte, 8<<20)...)
			live(metaHighWater, uint64(m.pages()))(m)
			copy(m.page(free), m.page(id))
			m.set64(free, headID, uint64(free))
			m.set32(free, headOverflow, 1024)
			m.inBucket(0, uint64(free))
		}, "branch page of 4198400 bytes"},

		{"inline bucket becomes a record", inline, rootLeaf(leafFlags(0), 4, 0), "a record where a bucket should be"},
		{"inline bucket cut", inline, rootLeaf(leafValue(0), 4, 20), "inline bucket of 20 bytes"},
		{"bucket header cut", inline, rootLeaf(leafValue(0), 4, 8), "bucket of 8 bytes"},
		{"bucket with root page and inline bytes", inline, func(m *image) { m.inBucket(0, 5) }, "bucket with root page 5"},
		{"inline page of another type", inline, func(m *image) { m.inBucket(16+8, 1) }, "inline bucket with a page of type 0x"},
		{"inline page counts less", inline, func(m *image) { m.inBucket(16+8, 2|1<<16) }, "element 0: data at offset"},

		{"nested root beyond the end", withNested, func(m *image) { m.nestedRoot(1 << 40) }, "root of a bucket, high-water mark"},
		{"nested root is a used page", withNested, func(m *image) { m.nestedRoot(m.get64(m.live(), metaRoot)) }, "referenced more than once"},

		{"freelist of another type", synced, func(m *image) { m.set16(m.freelist(), headFlags, typeLeaf) }, "where the freelist should be"},
		{"freelist too long", synced, func(m *image) { m.set16(m.freelist(), headCount, 4000) }, "freelist of 4000 pages exceeds"},
		{"freelist of a great count", synced, func(m *image) {
			m.set16(m.freelist(), headCount, 0xFFFF)
			m.set64(m.freelist(), 16, math.MaxUint64)
		}, "freelist of 18446744073709551615 pages"},
		{"free page beyond the end", synced, func(m *image) { m.set64(m.freelist(), 16, 1<<40) }, "freelist names page 1099511627776"},
		{"free page in use", synced, func(m *image) { m.set64(m.freelist(), 16, m.get64(m.live(), metaRoot)) }, "is free and in use"},
		{"freed twice", synced, func(m *image) { m.set64(m.freelist(), 16, m.get64(m.freelist(), 24)) }, "freed twice"},
		{"free page missing", synced, func(m *image) {
			m.set16(m.freelist(), headCount, uint16(m.count(m.freelist())-1))
		}, "is neither free nor in use"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := scanBytes(tt.base)
			require.NoError(t, err, "before the damage")
			m := newImage(tt.base)
			tt.damage(m)
			got, err := scanBytes(m.b)
			var corrupt *boltfile.CorruptError
			require.ErrorAs(t, err, &corrupt)
			require.ErrorContains(t, err, tt.want)
			require.Nil(t, got)
		})
	}
}

const metaTxid = 16 + 48

// live sets a field of the meta page that counts.
func live(at int, v uint64) func(*image) {
	return func(m *image) {
		m.set64(m.live(), at, v)
		m.sum(m.live())
	}
}

func (m *image) set(id, at, size int, v uint64) {
	switch size {
	case 2:
		m.set16(id, at, uint16(v))
	case 4:
		m.set32(id, at, uint32(v))
	default:
		m.set64(id, at, v)
	}
}

// leafN sets a field of the n-th leaf page, branchN of the first branch page,
// rootLeaf of the root.
func leafN(n, at, size int, v uint64) func(*image) {
	return func(m *image) { m.set(m.find(typeLeaf)[n], at, size, v) }
}

func branchN(at, size int, v uint64) func(*image) {
	return func(m *image) { m.set(m.find(typeBranch)[0], at, size, v) }
}

func rootLeaf(at, size int, v uint64) func(*image) {
	return func(m *image) { m.set(int(m.get64(m.live(), metaRoot)), at, size, v) }
}

func (m *image) freelist() int { return int(m.get64(m.live(), metaFreelist)) }

// inBucket sets 8 bytes of the first bucket's value in the root leaf.
func (m *image) inBucket(at int, v uint64) {
	root := int(m.get64(m.live(), metaRoot))
	value := 16 + int(m.get32(root, leafPos(0))) + int(m.get32(root, leafKey(0)))
	m.set64(root, value+at, v)
}

// nestedRoot changes the root page of a bucket inside a bucket.
func (m *image) nestedRoot(v uint64) {
	for _, id := range m.find(typeLeaf) {
		for i := range m.count(id) {
			pos := 16 + 16*i + int(m.get32(id, leafPos(i)))
			key := m.page(id)[pos : pos+int(m.get32(id, leafKey(i)))]
			if bytes.HasPrefix(key, []byte("inner-3")) && m.get32(id, leafValue(i)) == 16 {
				m.set64(id, pos+len(key), v)
				return
			}
		}
	}
	panic("no nested bucket with a root page of its own")
}

// Of two meta pages the valid one with the larger transaction id counts; a
// damaged one leaves the database to the other, as with bbolt.
func TestMetaPages(t *testing.T) {
	for _, pageSize := range []int{1024, 4096, 16 << 10, 64 << 10} {
		b := build(t, pageSize, false, fill("a", 100, 50), fill("b", 100, 50), fill("c", 100, 50))
		for _, damaged := range []int{0, 1} {
			for at := range 64 {
				m := newImage(b)
				m.field(damaged, 16+at)[0] ^= 0x10
				want := reference(t, m.b)
				got, err := scanBytes(m.b)
				require.NoError(t, err, "page size %d, meta %d, byte %d", pageSize, damaged, at)
				require.Equal(t, want, got)
			}
		}
		m := newImage(b)
		m.field(0, 16)[0]++
		m.field(1, 16)[0]++
		_, err := scanBytes(m.b)
		require.ErrorContains(t, err, "page 0: meta page: not a bbolt database, and no valid second meta page")

		m = newImage(b)
		m.set32(0, 16+4, 3)
		m.set32(1, 16+4, 3)
		_, err = scanBytes(m.b)
		require.ErrorContains(t, err, "unknown format version")

		m = newImage(b)
		m.field(0, 16+60)[0]++
		m.field(1, 16+60)[0]++
		_, err = scanBytes(m.b)
		require.ErrorContains(t, err, "wrong checksum")
	}
}

// Every length below the whole is refused.
func TestShort(t *testing.T) {
	b := build(t, 1024, false, fill("a", 30, 50))
	for n := range len(b) {
		_, err := scanBytes(b[:n])
		var short *boltfile.ShortError
		var corrupt *boltfile.CorruptError
		require.True(t, errors.As(err, &short) || errors.As(err, &corrupt), "%d bytes: %v", n, err)
	}
	_, err := scanBytes(nil)
	require.ErrorContains(t, err, "database ends at byte 0")
}

// shrinking is a file that is cut after a number of reads.
type shrinking struct {
	b     []byte
	reads int
}

func (s *shrinking) ReadAt(p []byte, off int64) (int, error) {
	if s.reads--; s.reads < 0 {
		s.b = s.b[:min(len(s.b), 5000)]
	}
	return bytes.NewReader(s.b).ReadAt(p, off)
}

func TestShrinkingFile(t *testing.T) {
	b := build(t, 4096, true, fill("a", 3000, 100), fill("b", 3, 5<<20), drop("a", 3000, 2))
	for reads := range 40 {
		_, _, err := scan(&lockedReader{r: &shrinking{b: b, reads: reads}}, int64(len(b)))
		if err == nil {
			require.Greater(t, reads, 5)
			continue
		}
		var short *boltfile.ShortError
		require.ErrorAs(t, err, &short, "after %d reads", reads)
	}
}

// failing is a disk that cannot read any more after a number of reads.
type failing struct {
	b     []byte
	reads int
}

var errDisk = errors.New("input/output error")

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if f.reads--; f.reads < 0 {
		return 0, errDisk
	}
	return bytes.NewReader(f.b).ReadAt(p, off)
}

// An error of the reader, at whichever read, comes back as it is.
func TestReaderFails(t *testing.T) {
	b := build(t, 4096, true, fill("a", 3000, 100), fill("b", 3, 5<<20), drop("a", 3000, 2), nested)
	for reads := 0; ; reads++ {
		_, _, err := scan(&lockedReader{r: &failing{b: b, reads: reads}}, int64(len(b)))
		if err == nil {
			require.Greater(t, reads, 10)
			return
		}
		require.ErrorIs(t, err, errDisk, "after %d reads", reads)
	}
}

// failingVisitor stops at the n-th leaf.
type failingVisitor struct{ boltfile.Visitor }

var errVisitor = errors.New("seen enough")

func (failingVisitor) Leaf(*boltfile.Leaf) error             { return errVisitor }
func (failingVisitor) Large([]byte, *io.SectionReader) error { return errVisitor }
func (failingVisitor) Done() error                           { return nil }

func TestVisitorFails(t *testing.T) {
	for _, valueSize := range []int{100, 5 << 20} {
		b := build(t, 4096, false, fill("a", 5, valueSize), fill("b", 300, 100))
		db, err := boltfile.Open(bytes.NewReader(b), int64(len(b)))
		require.NoError(t, err)
		_, _, err = db.Scan(context.Background(), boltfile.Options{
			Visit: func(boltfile.Bucket, int) boltfile.Visitor { return failingVisitor{} },
		})
		require.ErrorIs(t, err, errVisitor)
	}
}

func TestCancelled(t *testing.T) {
	b := build(t, 4096, false, fill("a", 3000, 100), fill("b", 3, 5<<20))
	db, err := boltfile.Open(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(context.Background())
	visited := 0
	_, _, err = db.Scan(ctx, boltfile.Options{Read: func(int64) {
		if visited++; visited == 5 {
			cancel(nil)
		}
	}})
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, visited, 20)
}

// The same page is named each time, however the workers happen to run.
func TestFirstOfSeveralErrors(t *testing.T) {
	b := build(t, 4096, false, fill("a", 60_000, 100))
	m := newImage(b)
	leaves := m.find(typeLeaf)
	for _, id := range leaves[len(leaves)/2:] {
		m.set64(id, headID, 1)
	}
	_, want := scanBytes(m.b)
	require.ErrorContains(t, want, "calls itself 1")
	for range 50 {
		_, err := scanBytes(m.b)
		require.Equal(t, want.Error(), err.Error())
	}
}

// forge writes a database by hand: pages by number, each with one element.
type forge struct{ *image }

func newForge(pages int) forge {
	const pageSize = 1024
	m := forge{&image{b: make([]byte, pages*pageSize), pageSize: pageSize}}
	for id := range 2 {
		m.set64(id, headID, uint64(id))
		m.set16(id, headFlags, 4)
		m.set32(id, 16, 0xED0CDAED)
		m.set32(id, 20, 2)
		m.set32(id, metaPageSize, pageSize)
		m.set64(id, metaRoot, 2)
		m.set64(id, metaFreelist, math.MaxUint64)
		m.set64(id, metaHighWater, uint64(pages))
		m.set64(id, metaTxid, uint64(id))
		m.sum(id)
	}
	return m
}

func (m forge) branch(id, childPage int) {
	m.set64(id, headID, uint64(id))
	m.set16(id, headFlags, typeBranch)
	m.set16(id, headCount, 1)
	m.set32(id, branchPos(0), 16)
	m.set32(id, branchKey(0), 1)
	m.set64(id, branchPgid(0), uint64(childPage))
	m.page(id)[32] = 'k'
}

// bucket makes page id a leaf with one bucket whose root is the other page.
func (m forge) bucket(id, root int) {
	m.set64(id, headID, uint64(id))
	m.set16(id, headFlags, typeLeaf)
	m.set16(id, headCount, 1)
	m.set32(id, leafFlags(0), 1)
	m.set32(id, leafPos(0), 16)
	m.set32(id, leafKey(0), 1)
	m.set32(id, leafValue(0), 16)
	m.page(id)[32] = 'k'
	m.set64(id, 33, uint64(root))
}

func (m forge) leaf(id int) {
	m.set64(id, headID, uint64(id))
	m.set16(id, headFlags, typeLeaf)
}

// Trees as deep as the file is long, and circles, come to an end.
func TestDepthBombs(t *testing.T) {
	const pages = 100_000
	t.Run("branches", func(t *testing.T) {
		m := newForge(pages)
		m.bucket(2, 3)
		for id := 3; id < pages-1; id++ {
			m.branch(id, id+1)
		}
		m.leaf(pages - 1)
		got, err := scanBytes(m.b)
		require.NoError(t, err) // absurd, but well-formed
		require.Equal(t, content{"k": {}}, got)
	})
	t.Run("branches in a circle", func(t *testing.T) {
		m := newForge(pages)
		m.bucket(2, 3)
		for id := 3; id < pages; id++ {
			m.branch(id, id+1)
		}
		m.branch(pages-1, 3)
		_, err := scanBytes(m.b)
		require.ErrorContains(t, err, "page 3: referenced more than once")
	})
	t.Run("buckets in buckets", func(t *testing.T) {
		m := newForge(pages)
		for id := 2; id < pages-1; id++ {
			m.bucket(id, id+1)
		}
		m.leaf(pages - 1)
		got, err := scanBytes(m.b)
		require.NoError(t, err)
		require.Equal(t, content{"k": {"k="}}, got)
	})
	t.Run("buckets in a circle", func(t *testing.T) {
		m := newForge(pages)
		for id := 2; id < pages; id++ {
			m.bucket(id, id+1)
		}
		m.bucket(pages-1, 2)
		_, err := scanBytes(m.b)
		require.ErrorContains(t, err, "page 2: referenced more than once")
	})
	t.Run("root in a circle", func(t *testing.T) {
		m := newForge(10)
		m.branch(2, 2)
		_, err := scanBytes(m.b)
		require.ErrorContains(t, err, "page 2: referenced more than once")
	})
	t.Run("one leaf claims the whole file", func(t *testing.T) {
		m := newForge(pages)
		m.bucket(2, 3)
		m.leaf(3)
		m.set16(3, headCount, 0xFFFF)
		m.set32(3, headOverflow, pages-4)
		_, err := scanBytes(m.b)
		require.ErrorContains(t, err, "page 3: element 0: data at offset 16, want 1048576")
	})
}

// More buckets than anyone has, which would have to be kept in memory.
func TestTooManyBuckets(t *testing.T) {
	b := build(t, 4096, false, func(tx *bolt.Tx) error {
		for i := range boltfile.MaxBuckets + 1 {
			if _, err := tx.CreateBucket(binary.BigEndian.AppendUint32(nil, uint32(i))); err != nil {
				return err
			}
		}
		return nil
	})
	_, err := scanBytes(b)
	require.ErrorContains(t, err, "more than 65536 buckets")
}
