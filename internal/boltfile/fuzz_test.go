package boltfile_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/snaptest/short"
)

// checkScan scans b. What the scan accepts must be sound: bbolt opens it, its
// own checker finds nothing, and it reads the same content. What it refuses is
// refused with an error of this package and without any content.
func checkScan(t *testing.T, b []byte) (accepted bool) {
	got, err := scanBytes(b)
	if err != nil {
		var corrupt *boltfile.CorruptError
		var short *boltfile.ShortError
		var notDatabase *boltfile.NotDatabaseError
		require.True(t, errors.As(err, &corrupt) || errors.As(err, &short) || errors.As(err, &notDatabase), "%v", err)
		require.Nil(t, got)
		return false
	}
	// bbolt reads with one meta page and its check wants two well-formed headers.
	db, err := boltfile.Open(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	m := &image{b: bytes.Clone(b), pageSize: int(db.PageSize())}
	for id := range 2 {
		m.set64(id, headID, uint64(id))
		m.set16(id, headFlags, typeMeta)
	}
	require.Equal(t, reference(t, m.b), got)
	return true
}

// resum corrects the checksums of both meta pages, which a fuzzer would never
// guess, for a database with the smallest page size.
func resum(b []byte) {
	const pageSize = 1024
	for _, at := range []int{0, pageSize} {
		if len(b) >= at+16+64 {
			h := fnv.New64a()
			_, _ = h.Write(b[at+16 : at+16+56])
			binary.NativeEndian.PutUint64(b[at+16+56:], h.Sum64())
		}
	}
}

// seeds are small databases of different shapes.
func seeds(tb testing.TB) [][]byte {
	return [][]byte{
		build(tb, 1024, false),
		build(tb, 1024, false, fill("a", 2, 10), empty("b")),
		build(tb, 1024, true, fill("a", 60, 40), drop("a", 60, 3)),
		build(tb, 1024, false, fill("a", 300, 20), drop("a", 300, 7)),
		build(tb, 1024, false, fill("a", 3, 3000)),
		build(tb, 1024, true, func(tx *bolt.Tx) error {
			b, err := tx.CreateBucket([]byte("outer"))
			if err != nil {
				return err
			}
			if _, err := b.CreateBucket([]byte("in")); err != nil {
				return err
			}
			inner, err := b.CreateBucket([]byte("out"))
			if err != nil {
				return err
			}
			return inner.Put([]byte("k"), make([]byte, 900))
		}),
	}
}

func FuzzScan(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, fix bool) {
		if len(b) > 1<<20 {
			return
		}
		if fix {
			resum(b)
		}
		checkScan(t, b)
	})
}

// The seed corpus in the repository must not get lost.
func TestFuzzCorpus(t *testing.T) {
	entries, err := os.ReadDir(filepath.Join("testdata", "fuzz", "FuzzScan"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(entries), 6)
}

// A fixed slice of random damage, for every run of the tests.
func TestRandomDamage(t *testing.T) {
	rng := rand.New(rand.NewPCG(2026, 11))
	accepted := 0
	files := short.Or(4000, 500)
	bases := seeds(t)
	for i := range files {
		m := newImage(bases[i%len(bases)])
		for range 1 + rng.IntN(3) {
			damage(rng, m)
		}
		if rng.IntN(2) == 0 {
			resum(m.b)
		}
		if checkScan(t, m.b) {
			accepted++
		}
	}
	t.Logf("%d of %d damaged databases are sound all the same", accepted, files)
	require.Less(t, accepted, files)
	require.NotZero(t, accepted, "bytes that do not matter, such as those of a value, exist")
}

// damage changes a page header, a table, a reference, a bit or a whole page.
func damage(rng *rand.Rand, m *image) {
	if len(m.b) < 2*m.pageSize {
		return
	}
	id := rng.IntN(m.pages())
	values := []uint64{0, 1, 2, 3, uint64(id), uint64(m.pages()), 0xFFFF, 0xFFFFFFFF, 1 << 63, rng.Uint64(), rng.Uint64N(uint64(m.pages()))}
	v := values[rng.IntN(len(values))]
	element := rng.IntN(max(1, min(m.count(id), 60)))
	switch rng.IntN(12) {
	case 0:
		m.set64(id, headID, v)
	case 1:
		m.set16(id, headFlags, uint16(v))
	case 2:
		m.set16(id, headCount, uint16(v))
	case 3:
		m.set32(id, headOverflow, uint32(v))
	case 4:
		m.set32(id, 16+16*element+4*rng.IntN(4), uint32(v))
	case 5:
		m.set64(id, branchPgid(element), v)
	case 6:
		at := leafValue(element)
		m.set32(id, at, m.get32(id, at)+uint32(rng.IntN(5))-2)
	case 7:
		copy(m.page(id), m.page(rng.IntN(m.pages())))
	case 8:
		fields := []int{metaRoot, metaFreelist, metaHighWater, metaTxid, metaPageSize}
		m.set64(m.live(), fields[rng.IntN(len(fields))], v)
	case 9:
		m.b = m.b[:len(m.b)-rng.IntN(len(m.b)/2)]
		m.b = m.b[:len(m.b)/m.pageSize*m.pageSize]
	default:
		m.b[rng.IntN(len(m.b))] ^= 1 << rng.IntN(8)
	}
}
