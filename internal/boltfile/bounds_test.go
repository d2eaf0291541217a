package boltfile_test

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/snaptest/short"
)

// Trees as deep as the file is long, and circles, come to an end.
func TestDepthBombs(t *testing.T) {
	const pages = 100_000
	t.Run("branches", func(t *testing.T) {
		m := newForge(pages)
		m.bucket(2, 3)
		for id := 3; id < pages-1; id++ {
			m.branch(id, "k", id+1)
		}
		m.leaf(pages - 1)
		_, err := scanBytes(m.b)
		require.ErrorContains(t, err, "page 3: branch page of 1 elements")
	})
	t.Run("branches in a circle", func(t *testing.T) {
		m := newForge(10)
		m.bucket(2, 3)
		m.branch(3, "ai", 4, 5)
		m.branch(4, "ab", 3, 6)
		m.branch(5, "ij", 7, 8)
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
		m.branch(2, "kl", 2, 3)
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

// More nested buckets than pages would have to share them.
func TestTooManyNestedBuckets(t *testing.T) {
	m := newForge(11)
	m.bucket(2, 3)
	const n = 200
	m.elements(3, n, 1, binary.NativeEndian.AppendUint64(nil, 9), 16)
	_, err := scanBytes(m.b)
	require.ErrorContains(t, err, "more nested buckets than pages")
}

// A top-level page is held in memory, so it must not be too large.
func TestLargeTopLevel(t *testing.T) {
	m := newForge(5000)
	m.bucket(2, 3)
	m.set32(2, headOverflow, 4200)
	_, err := scanBytes(m.b)
	require.ErrorContains(t, err, "page 2: top-level page of more than 4 MiB")
}

// Nor must all inline buckets together.
func TestInlineBucketsOfManyMiB(t *testing.T) {
	short.Skip(t, "builds databases of 16 MiB in buckets")
	const size = 16_000
	inlineBuckets := func(n int) []byte {
		return build(t, 64<<10, false, func(tx *bolt.Tx) error {
			for i := range n {
				b, err := tx.CreateBucket(binary.BigEndian.AppendUint32(nil, uint32(i)))
				if err != nil {
					return err
				}
				if err := b.Put([]byte("k"), make([]byte, size)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	requireSameAsBbolt(t, inlineBuckets(16<<20/(size+100)))
	_, err := scanBytes(inlineBuckets(16<<20/size + 1))
	require.ErrorContains(t, err, "bytes of names and inline buckets")

	names := make([]string, 600)
	for i := range names {
		names[i] = fmt.Sprintf("%030000d", i)
	}
	_, err = scanBytes(build(t, 64<<10, false, empty(names...)))
	require.ErrorContains(t, err, "bytes of names and inline buckets")
}

// Freelists of all lengths, also of those that do not fit in the header, and
// that fill their pages to the last byte.
func TestFreelistLengths(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 127, 0xFFFE, 0xFFFF, 0x10000, 70_000} {
		m := newFreelist(n)
		got, err := scanBytes(m.b)
		require.NoError(t, err, "%d free pages", n)
		require.Equal(t, content{}, got)
		if n == 0 {
			continue
		}
		list := m.b[3*m.pageSize:]
		last := list[16+8*(n-1):]
		if n >= 0xFFFF {
			last = last[8:]
		}
		binary.NativeEndian.PutUint64(last, 2)
		_, err = scanBytes(m.b)
		require.ErrorContains(t, err, "page 2: is free and in use", "%d free pages", n)
	}
	requireSameAsBbolt(t, newFreelist(126).b)
	requireSameAsBbolt(t, newFreelist(0xFFFF).b)

	m := newFreelist(126)
	m.set16(3, headCount, 127)
	_, err := scanBytes(m.b)
	require.ErrorContains(t, err, "freelist of 127 pages exceeds its 1024 bytes")
}

// newFreelist is an empty database with n free pages and a freelist of them.
func newFreelist(n int) forge {
	size := 16 + 8*n
	if n >= 0xFFFF {
		size += 8
	}
	own := (size + 1023) / 1024
	m := newForge(2 + 1 + own + n)
	m.leaf(2)
	for id := range 2 {
		m.set64(id, metaFreelist, 3)
		m.sum(id)
	}
	m.header(3, 16, uint16(min(n, 0xFFFF)))
	m.set32(3, headOverflow, uint32(own-1))
	list := m.b[3*m.pageSize+16:]
	if n >= 0xFFFF {
		binary.NativeEndian.PutUint64(list, uint64(n))
		list = list[8:]
	}
	for i := range n {
		binary.NativeEndian.PutUint64(list[8*i:], uint64(3+own+i))
	}
	return m
}

// More buckets than anyone has, which would have to be kept in memory.
func TestTooManyBuckets(t *testing.T) {
	short.Skip(t, "builds two databases of 65,536 buckets")
	buckets := func(n int) []byte {
		return build(t, 4096, false, func(tx *bolt.Tx) error {
			for i := range n {
				if _, err := tx.CreateBucket(binary.BigEndian.AppendUint32(nil, uint32(i))); err != nil {
					return err
				}
			}
			return nil
		})
	}
	_, err := scanBytes(buckets(boltfile.MaxBuckets))
	require.NoError(t, err)
	_, err = scanBytes(buckets(boltfile.MaxBuckets + 1))
	require.ErrorContains(t, err, "more than 65536 buckets")
}
