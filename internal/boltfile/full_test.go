package boltfile_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
)

func requireSameAsBbolt(tb testing.TB, b []byte, msg ...any) {
	tb.Helper()
	got, err := scanBytes(b)
	require.NoError(tb, err, msg...)
	require.Equal(tb, reference(tb, b), got, msg...)
}

// oneRecord is a database with a leaf page of size bytes, without what is
// unused at its end.
func oneRecord(tb testing.TB, size int) []byte {
	tb.Helper()
	const key = "key"
	return build(tb, 4096, false, func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("b"))
		if err != nil {
			return err
		}
		return b.Put([]byte(key), make([]byte, size-16-16-len(key)))
	})
}

// Elements may fill a page, with its overflow pages, to the last byte.
func TestFullLeaf(t *testing.T) {
	for _, pages := range []int{1, 2, 3, 1024, 3000} {
		for size := pages*4096 - 1; size <= pages*4096+1; size++ {
			requireSameAsBbolt(t, oneRecord(t, size), size)
		}
	}
}

// Older versions of bbolt then add one more overflow page, which stays empty.
func TestFullLeafWithEmptyPage(t *testing.T) {
	for _, pages := range []int{1, 2, 3000} {
		m := newImage(oneRecord(t, pages*4096+1))
		for _, id := range m.find(typeLeaf) {
			if m.get32(id, headOverflow) == uint32(pages) {
				m.set32(id, leafValue(0), m.get32(id, leafValue(0))-1)
			}
		}
		requireSameAsBbolt(t, m.b, pages)
	}
}

// Branch pages are of all sizes too.
func TestFullBranch(t *testing.T) {
	full := 0
	for n := 100; n < 400; n += 3 {
		b := build(t, 1024, false, func(tx *bolt.Tx) error {
			b, err := tx.CreateBucket([]byte("b"))
			if err != nil {
				return err
			}
			b.FillPercent = 1
			for i := range n {
				if err := b.Put(fmt.Appendf(nil, "%020d", i), make([]byte, 300)); err != nil {
					return err
				}
			}
			return nil
		})
		m := newImage(b)
		for _, id := range m.find(typeBranch) {
			if 16+m.count(id)*(16+20) == 1024 {
				full++
			}
		}
		requireSameAsBbolt(t, b, n)
	}
	require.Positive(t, full)
}
