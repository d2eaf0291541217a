package boltfile_test

import (
	"bytes"
	"encoding/binary"
	"errors"
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
	deep := build(t, 1024, false, fill("a", 3000, 100))
	large := build(t, 4096, false, fill("a", 6, 5<<20))
	largeGaps := build(t, 4096, false, func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("a"))
		for _, key := range []string{"b", "d", "f", "h", "j", "l"} {
			if err == nil {
				err = b.Put([]byte(key), make([]byte, 5<<20))
			}
		}
		return err
	})
	largeNested := build(t, 4096, false, largeAndNested)

	for _, tt := range []struct {
		name   string
		base   []byte
		damage func(m *image)
		want   string
	}{
		{"meta has another number", plain, func(m *image) { m.set64(m.live(), headID, 7) }, "page 0: header of the meta page has number 7"},
		{"meta is of another type", plain, func(m *image) { m.set16(m.live(), headFlags, typeLeaf) }, "page 0: header of the meta page has number 0 and type 0x2"},
		{"idle meta has another number", plain, func(m *image) { m.set64(1-m.live(), headID, 7) }, "page 1: header of the meta page has number 7"},
		{"second meta counts and is of another type", plain, func(m *image) {
			m.field(0, 16)[0]++
			m.set16(1, headFlags, typeLeaf)
		}, "page 1: header of the meta page has number 1 and type 0x2"},
		{"page size 0", plain, func(m *image) { m.set32(0, metaPageSize, 0); m.sum(0) }, "page 0: meta page: page size 0"},
		{"page size 3000", plain, func(m *image) { m.set32(0, metaPageSize, 3000); m.sum(0) }, "page 0: meta page: page size 3000"},
		{"page size 512", plain, func(m *image) { m.set32(0, metaPageSize, 512); m.sum(0) }, "page 0: meta page: page size 512"},
		{"page size 128 KiB", plain, func(m *image) { m.set32(0, metaPageSize, 128<<10); m.sum(0) }, "page 0: meta page: page size 131072"},
		{"page sizes differ", plain, func(m *image) {
			m.set32(1, metaPageSize, 8192)
			m.set64(1, metaTxid, 1<<40)
			m.sum(1)
		}, "page 1: meta page: page size 8192 bytes, the other has 4096"},
		{"no pages", plain, live(metaHighWater, 2), "high-water mark 2"},
		{"impossible high-water mark", plain, live(metaHighWater, math.MaxUint64), "pages are not supported"},
		{"root is a meta page", plain, live(metaRoot, 1), "root page 1"},
		{"root beyond the end", plain, live(metaRoot, 1<<50), "root page 1125899906842624"},
		{"root just beyond the end", plain, func(m *image) { live(metaRoot, uint64(m.pages()))(m) }, "meta page: root page"},
		{"freelist beyond the end", plain, live(metaFreelist, 1<<50), "freelist page 1125899906842624"},

		{"page has another number", plain, leafN(5, headID, 8, 99), "header has page number 99"},
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
		{"leaf overflows just beyond the end", plain, func(m *image) {
			id := m.find(typeLeaf)[5]
			m.set32(id, headOverflow, uint32(m.pages()-id))
		}, "reach beyond the high-water mark"},
		{"leaf overflows into its neighbour", plain, leafN(5, headOverflow, 4, 1), "1 overflow pages for 2048 bytes, want 0"},
		{"position", plain, leafN(5, leafPos(3), 4, 0xFFFFFFFF), "element 3: data at offset"},
		{"position overlaps", plain, leafN(5, leafPos(3), 4, 0), "element 3: data at offset"},
		{"key without bytes", plain, leafN(5, leafKey(3), 4, 0), "element 3: key of 0 bytes"},
		{"key too long", plain, leafN(5, leafKey(3), 4, 40_000), "element 3: key of 40000 bytes"},
		{"key just too long", plain, leafN(5, leafKey(3), 4, 32769), "element 3: key of 32769 bytes"},
		{"value one byte beyond the page", plain, func(m *image) {
			id := m.find(typeLeaf)[5]
			last := m.count(id) - 1
			start := 16 + 16*last + int(m.get32(id, leafPos(last))+m.get32(id, leafKey(last)))
			m.set32(id, leafValue(last), uint32(m.pageSize+1-start))
		}, "ends at offset 4097 of a page of 4096 bytes"},
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
		{"keys falling", plain, func(m *image) {
			page := m.page(m.find(typeLeaf)[5])
			i := bytes.Index(page, []byte("key-"))
			page[i+9] = '9'
		}, "does not follow"},
		{"key equal to the next page's", plain, func(m *image) {
			leaves := m.find(typeLeaf)
			page, next := m.page(leaves[5]), m.page(leaves[6])
			i, j := bytes.LastIndex(page, []byte("key-")), bytes.Index(next, []byte("key-"))
			copy(page[i:], next[j:j+11])
		}, "the next key in the parent page"},
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

		{"branch without elements", plain, branchN(headCount, 2, 0), "branch page of 0 elements"},
		{"branch of one element", plain, branchN(headCount, 2, 1), "branch page of 1 elements"},
		{"branch counts too many", plain, branchN(headCount, 2, 4000), "table of 4000 elements exceeds the page"},
		{"branch position", plain, branchN(branchPos(1), 4, 5), "element 1: data at offset"},
		{"branch key without bytes", plain, branchN(branchKey(1), 4, 0), "element 1: key of 0 bytes"},
		{"child is a meta page", plain, branchN(branchPgid(1), 8, 0), "element 1: child page 0"},
		{"child beyond the end", plain, branchN(branchPgid(1), 8, 1<<40), "element 1: child page 1099511627776"},
		{"first child beyond the end", plain, branchN(branchPgid(0), 8, 1<<40), "element 0: child page 1099511627776"},
		{"first child beyond any file", plain, branchN(branchPgid(0), 8, 1<<62), "element 0: child page 4611686018427387904"},
		{"child just beyond the end", plain, func(m *image) {
			m.set64(m.find(typeBranch)[0], branchPgid(1), uint64(m.pages()))
		}, "element 1: child page"},
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
		{"branch keys equal", plain, func(m *image) {
			page := m.page(m.find(typeBranch)[0])
			i := bytes.Index(page, []byte("key-"))
			copy(page[i:], page[i+11:i+22])
		}, "does not follow"},
		{"last leaf above the next branch", deep, func(m *image) {
			leaf := m.child(m.lowBranch(), -1)
			page := m.page(leaf)
			copy(page[bytes.LastIndex(page, []byte("key-")):], "key-9")
		}, "the next key in the parent page"},
		{"branch above the next branch", deep, func(m *image) {
			page := m.page(m.lowBranch())
			copy(page[bytes.LastIndex(page, []byte("key-")):], "key-9")
		}, "is not below"},
		{"branch below its key in the parent", deep, func(m *image) {
			page := m.page(m.lowBranch())
			copy(page[bytes.Index(page, []byte("key-")):], "key-!")
		}, "its key in the parent page"},
		{"leaf above its key in the parent", synced, func(m *image) {
			id := m.child(m.bucketRoot(), 0)
			m.page(id)[16+16*2+int(m.get32(id, branchPos(2))+m.get32(id, branchKey(2)))-1]--
		}, "its key in the parent page"},
		{"branch above its key in the parent", deep, func(m *image) {
			page := m.page(m.lowBranch())
			first := page[bytes.Index(page, []byte("key-")):]
			first[len("key-0000000")-1]++
		}, "its key in the parent page"},
		{"large leaf above its key in the parent", largeGaps, func(m *image) {
			id := m.bucketRoot()
			m.page(id)[16+16*1+int(m.get32(id, branchPos(1))+m.get32(id, branchKey(1)))-1]--
		}, "its key in the parent page"},
		{"leaf without elements", plain, func(m *image) {
			m.set16(m.find(typeLeaf)[5], headCount, 0)
		}, "leaf page without elements below a branch page"},
		{"branch of more overflow pages", plain, func(m *image) { m.moveBranch(1) }, "1 overflow pages for"},
		{"huge branch", plain, func(m *image) { m.moveBranch(1024) }, "branch page of 4198400 bytes"},

		{"inline bucket becomes a record", inline, rootLeaf(leafFlags(0), 4, 0), "a record where a bucket should be"},
		{"inline bucket cut", inline, rootLeaf(leafValue(0), 4, 20), "inline bucket of 20 bytes"},
		{"bucket header cut", inline, rootLeaf(leafValue(0), 4, 8), "bucket of 8 bytes"},
		{"bucket with root page and inline bytes", inline, func(m *image) { m.inBucket(0, 5) }, "bucket with root page 5"},
		{"inline page of another type", inline, func(m *image) { m.inBucket(16+8, pageHeader(1, 0, 0)) }, "inline bucket with a page of type 0x"},
		{"inline page counts less", inline, func(m *image) { m.inBucket(16+8, pageHeader(2, 1, 0)) }, "element 0: data at offset"},

		{"inline page that overflows", inline, func(m *image) { m.inBucket(16+8, pageHeader(2, 2, 1)) }, "inline bucket with a page of type 0x2 and 1 overflow pages"},
		{"inline bucket with a byte too many", inline, func(m *image) {
			root := int(m.get64(m.live(), metaRoot))
			m.set32(root, leafValue(0), m.get32(root, leafValue(0))+1)
		}, "its elements need"},
		{"inline bucket that holds a bucket", inline, func(m *image) { m.inBucket(16+16, numbers(1, 32)) }, "inline bucket that holds buckets"},

		{"large leaf: unknown flag", large, leafN(0, leafFlags(1), 4, 2), "element 1: flags 0x2"},
		{"large leaf: record becomes bucket", large, leafN(0, leafFlags(1), 4, 1), "element 1: bucket of 5242880 bytes"},
		{"large leaf: counts too many", large, leafN(0, headCount, 2, 9), "element 0: data at offset"},
		{"large leaf: position", large, leafN(0, leafPos(1), 4, 5), "element 1: data at offset"},
		{"large leaf: more overflow pages", large, func(m *image) {
			id := m.find(typeLeaf)[0]
			m.set32(id, headOverflow, m.get32(id, headOverflow)+2)
		}, "overflow pages for"},
		{"large leaf: keys equal", large, func(m *image) { m.largeKey(0, 1, "key-0000000") }, "does not follow"},
		{"large leaf: keys falling", large, func(m *image) { m.largeKey(1, 0, "key-0000009") }, "key"},
		{"large leaf: key below its page's", large, func(m *image) { m.largeKey(1, 0, "aaa-0000000") }, "its key in the parent page"},
		{"large leaf: key above the next page's", large, func(m *image) { m.largeKey(0, 1, "key-0000002") }, "the next key in the parent page"},
		{"large leaf: bucket with root page and inline bytes", largeNested, func(m *image) { m.largeBucket(5) }, "bucket with root page 5"},
		{"large leaf: inline bucket of another type", largeNested, func(m *image) { m.largeInline(16+8, pageHeader(1, 0, 0)) }, "inline bucket with a page of type 0x1"},

		{"nested root beyond the end", withNested, func(m *image) { m.nestedRoot(1 << 40) }, "root of a bucket, high-water mark"},
		{"nested root is a used page", withNested, func(m *image) { m.nestedRoot(m.get64(m.live(), metaRoot)) }, "referenced more than once"},

		{"freelist of another type", synced, func(m *image) { m.set16(m.freelist(), headFlags, typeLeaf) }, "where the freelist should be"},
		{"freelist too long", synced, func(m *image) { m.set16(m.freelist(), headCount, 4000) }, "freelist of 4000 pages exceeds"},
		{"freelist of a great count", synced, func(m *image) {
			m.set16(m.freelist(), headCount, 0xFFFF)
			m.set64(m.freelist(), 16, math.MaxUint64)
		}, "freelist of 18446744073709551615 pages"},
		{"free page beyond the end", synced, func(m *image) { m.set64(m.freelist(), 16, 1<<40) }, "freelist names page 1099511627776"},
		{"free page just beyond the end", synced, func(m *image) { m.set64(m.freelist(), 16, uint64(m.pages())) }, "freelist names page"},
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

// pageHeader is what follows the number in a page header, numbers two fields.
func pageHeader(flags, count uint16, overflow uint32) uint64 {
	b := binary.NativeEndian.AppendUint16(nil, flags)
	b = binary.NativeEndian.AppendUint16(b, count)
	return binary.NativeEndian.Uint64(binary.NativeEndian.AppendUint32(b, overflow))
}

func numbers(first, second uint32) uint64 {
	return binary.NativeEndian.Uint64(binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, first), second))
}

// bucketRoot is the root page of the first bucket.
func (m *image) bucketRoot() int {
	root := int(m.get64(m.live(), metaRoot))
	return int(m.get64(root, 16+int(m.get32(root, leafPos(0)))+int(m.get32(root, leafKey(0)))))
}

// lowBranch is a branch page above leaves with a neighbour on either side.
func (m *image) lowBranch() int {
	for _, id := range m.find(typeBranch) {
		if m.count(id) > 2 && m.flags(m.child(id, 0)) == typeBranch {
			return m.child(id, 1)
		}
	}
	panic("no tree of three levels")
}

// moveBranch moves the branch page of the first bucket to the end of the file,
// where it can have overflow pages that belong to no other page.
func (m *image) moveBranch(overflow uint32) {
	from, to := m.find(typeBranch)[0], m.pages()
	m.b = append(m.b, make([]byte, 8<<20)...)
	live(metaHighWater, uint64(m.pages()))(m)
	copy(m.page(to), m.page(from))
	m.set64(to, headID, uint64(to))
	m.set32(to, headOverflow, overflow)
	m.inBucket(0, uint64(to))
}

// child is the i-th child of a branch page, counted from the end if negative.
func (m *image) child(id, i int) int {
	if i < 0 {
		i += m.count(id)
	}
	return int(m.get64(id, branchPgid(i)))
}

// largeKey renames element i of the n-th leaf page, which may overflow.
func (m *image) largeKey(n, i int, key string) {
	id := m.find(typeLeaf)[n]
	copy(m.b[id*m.pageSize+16+16*i+int(m.get32(id, leafPos(i))):], key)
}

// largeAndNested fills a leaf page of many MiB that holds buckets as well.
func largeAndNested(tx *bolt.Tx) error {
	b, err := tx.CreateBucket([]byte("a"))
	if err != nil {
		return err
	}
	if _, err := b.CreateBucket([]byte("1 inline")); err != nil {
		return err
	}
	inner, err := b.CreateBucket([]byte("2 with a page of its own"))
	if err != nil {
		return err
	}
	return errors.Join(inner.Put([]byte("k"), make([]byte, 5000)), b.Put([]byte("3"), make([]byte, 5<<20)))
}

// largeBucket sets the root page of the inline bucket of largeAndNested, and
// largeInline 8 bytes of it.
func (m *image) largeBucket(root uint64) { m.largeInline(0, root) }
func (m *image) largeInline(at int, v uint64) {
	i := bytes.Index(m.b, []byte("1 inline")) + len("1 inline")
	binary.NativeEndian.PutUint64(m.b[i+at:], v)
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
