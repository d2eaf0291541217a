package boltfile_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/boltfile"
)

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
		for _, damaged := range []int{0, 1} {
			other := newImage(b)
			other.field(damaged, 16)[0]++
			want := reference(t, other.b)
			for _, junk := range []byte{0, 0xff} { // as a lost or torn write leaves it
				for _, size := range []int{512, 1024, pageSize} {
					m := newImage(b)
					copy(m.page(damaged), bytes.Repeat([]byte{junk}, size))
					got, err := scanBytes(m.b)
					require.NoError(t, err, "page size %d, meta %d, %d bytes %#x", pageSize, damaged, size, junk)
					require.Equal(t, want, got)
				}
			}
		}
		m := newImage(b)
		m.field(0, 16)[0]++
		m.field(1, 16)[0]++
		_, err := scanBytes(m.b)
		var notDatabase *boltfile.NotDatabaseError
		require.ErrorAs(t, err, &notDatabase)
		require.Equal(t, m.b[:512], notDatabase.Head)

		m = newImage(b)
		m.set32(0, 16+4, 3)
		m.set32(1, 16+4, 3)
		_, err = scanBytes(m.b)
		require.ErrorContains(t, err, "unknown format version")

		m = newImage(b)
		m.field(0, 16+60)[0]++
		m.field(1, 16+60)[0]++
		_, err = scanBytes(m.b)
		require.ErrorContains(t, err, "page 0: meta page: wrong checksum, and no valid second meta page")
	}
}

// A new database has transactions 0 and 1; 0 counts as well as any other.
func TestMetaPageOfTransactionZero(t *testing.T) {
	m := newImage(build(t, 4096, false))
	require.Zero(t, m.get64(1, metaTxid))
	m.field(0, 16)[0]++
	requireSameAsBbolt(t, m.b)
}

// Of two valid meta pages with the same transaction id the first one counts.
func TestMetaPagesOfOneTransaction(t *testing.T) {
	m := newForge(6)
	m.bucket(2, 4)
	m.leaf(4)
	m.leaf(3) // without a bucket
	m.set64(1, metaRoot, 3)
	m.set64(1, metaTxid, m.get64(0, metaTxid))
	m.sum(1)
	got, err := scanBytes(m.b)
	require.NoError(t, err)
	require.Equal(t, reference(t, m.b), got)
	require.Equal(t, content{"k": {}}, got)
}

// What looks like a meta page, but not of a page where it lies, is passed over.
func TestStrayMetaPage(t *testing.T) {
	b := build(t, 4096, false, fill("a", 100, 50))
	want := reference(t, b)
	m := newImage(b)
	copy(m.b[1024:], m.page(1)[:80])
	m.field(0, 16)[0]++
	got, err := scanBytes(m.b)
	require.NoError(t, err)
	require.Equal(t, want, got)
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

	m := newForge(5) // the last pages of which are free
	m.leaf(2)
	_, err = scanBytes(m.b)
	require.NoError(t, err)
	var short *boltfile.ShortError
	_, err = scanBytes(m.b[:4*m.pageSize])
	require.ErrorAs(t, err, &short)
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
