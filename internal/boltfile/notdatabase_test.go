package boltfile_test

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"io"
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/fault"
)

// swapMeta puts a meta page into the byte order that this machine does not have.
func (m *image) swapMeta(id int) {
	page := m.page(id)
	for at, sizes := 0, []int{8, 2, 2, 4 /* header */, 4, 4, 4, 4, 8, 8, 8, 8, 8}; len(sizes) > 0; sizes = sizes[1:] {
		slices.Reverse(page[at : at+sizes[0]])
		at += sizes[0]
	}
	h := fnv.New64a()
	_, _ = h.Write(page[16 : 16+56])
	m.set64(id, 16+56, h.Sum64())
	slices.Reverse(page[16+56 : 16+64])
}

func bigEndianMachine() bool { return binary.NativeEndian.Uint16([]byte{0, 1}) == 1 }

// A database of the other byte order is told from a damaged one by either of its
// meta pages, whatever the page size.
func TestByteOrder(t *testing.T) {
	for _, pageSize := range []int{1024, 4096, 64 << 10} {
		b := build(t, pageSize, false, fill("a", 100, 50))
		for name, damage := range map[string]func(m *image){
			"sound":       func(*image) {},
			"first lost":  func(m *image) { clear(m.page(0)) },
			"second lost": func(m *image) { clear(m.page(1)) },
		} {
			m := newImage(b)
			m.swapMeta(0)
			m.swapMeta(1)
			damage(m)
			_, err := scanBytes(m.b)
			var order *boltfile.ByteOrderError
			require.ErrorAs(t, err, &order, "%s, page size %d", name, pageSize)
			require.Equal(t, !bigEndianMachine(), order.BigEndian)
			var corrupt *boltfile.CorruptError
			require.NotErrorAs(t, err, &corrupt)
			var short *boltfile.ShortError
			require.NotErrorAs(t, err, &short)

			_, err = scanBytes(m.b[:len(m.b)-pageSize])
			require.ErrorAs(t, err, &order)
			require.ErrorAs(t, err, &short, "cut")
		}
	}
	require.Contains(t, (&boltfile.ByteOrderError{BigEndian: true}).Error(), "the database is big-endian, as on s390x, and this machine is little-endian")
	require.Contains(t, (&boltfile.ByteOrderError{}).Error(), "the database is little-endian, as on amd64 and arm64, and this machine is big-endian")
}

// What only looks like the other byte order is damaged.
func TestByteOrderDamaged(t *testing.T) {
	b := build(t, 4096, false, fill("a", 100, 50))
	for name, tt := range map[string]struct {
		damage func(m *image)
		want   string
	}{
		"checksums": {func(m *image) { m.page(0)[16+60]++; m.page(1)[16+60]++ }, "in the other byte order: wrong checksum"},
		"versions":  {func(m *image) { m.page(0)[16+5]++; m.page(1)[16+5]++ }, "in the other byte order: unknown format version"},
	} {
		m := newImage(b)
		m.swapMeta(0)
		m.swapMeta(1)
		tt.damage(m)
		_, err := scanBytes(m.b)
		var corrupt *boltfile.CorruptError
		require.ErrorAs(t, err, &corrupt, name)
		require.ErrorContains(t, err, tt.want)
		var order *boltfile.ByteOrderError
		require.NotErrorAs(t, err, &order)
	}

	m := newImage(b)
	for id := range 2 {
		m.set64(id, metaHighWater, math.MaxUint64)
		m.swapMeta(id)
	}
	_, err := scanBytes(m.b)
	var order *boltfile.ByteOrderError
	require.ErrorAs(t, err, &order)
	var corrupt *boltfile.CorruptError
	require.ErrorAs(t, err, &corrupt, "a meta page that contradicts itself")

	m = newImage(b) // one page of this machine's order counts
	m.swapMeta(1 - m.live())
	got, err := scanBytes(m.b)
	require.NoError(t, err)
	require.Equal(t, reference(t, b), got)
}

// The error for a file that is not a database has the beginning of the file, even
// if it is too small for one; a file that begins like a database is truncated.
func TestNotDatabaseHead(t *testing.T) {
	b := build(t, 4096, false, fill("a", 100, 50))
	for _, text := range []string{"<html>", strings.Repeat("text", 10), strings.Repeat("text", 500), strings.Repeat("text", 5000)} {
		_, err := scanBytes([]byte(text))
		var notDatabase *boltfile.NotDatabaseError
		require.ErrorAs(t, err, &notDatabase)
		require.Equal(t, text[:min(len(text), 512)], string(notDatabase.Head))
	}
	swapped := newImage(b)
	swapped.swapMeta(0)
	for n := range 2048 {
		for _, b := range [][]byte{b, swapped.b, bytes.Repeat([]byte{0}, 16)} {
			_, err := scanBytes(b[:min(n, len(b))])
			var short *boltfile.ShortError
			require.ErrorAs(t, err, &short, "%d bytes", n)
		}
	}
}

// brokenAt fails at one read.
type brokenAt struct {
	io.ReaderAt
	reads, fail int
}

func (b *brokenAt) ReadAt(p []byte, off int64) (int, error) {
	if b.reads++; b.reads > b.fail {
		return 0, syscall.EIO
	}
	return b.ReaderAt.ReadAt(p, off)
}

// A file that cannot be read is neither one of the other byte order nor a damaged one.
func TestNotDatabaseCannotBeRead(t *testing.T) {
	text := bytes.Repeat([]byte("no database "), 20_000)
	for fail := 0; ; fail++ {
		r := &brokenAt{ReaderAt: bytes.NewReader(text), fail: fail}
		_, err := boltfile.Open(r, int64(len(text)))
		if r.reads <= fail {
			require.ErrorAs(t, err, new(*boltfile.NotDatabaseError))
			require.Greater(t, fail, 5)
			return
		}
		require.ErrorIs(t, err, syscall.EIO)
		require.NotErrorIs(t, err, fault.ErrByteOrder, "read %d", fail)
		require.NotErrorIs(t, err, fault.ErrCorrupt, "read %d", fail)
	}
}
