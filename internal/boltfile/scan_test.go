package boltfile_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/snaptest/short"
)

// An error of the reader, at whichever read, comes back as it is.
func TestReaderFails(t *testing.T) {
	b := build(t, 4096, true, fill("a", 3000, 100), fill("b", 3, 5<<20), drop("a", 3000, 2), nested)
	for reads := 0; ; reads += short.Step(1, 4) {
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

func (failingVisitor) Leaf(*boltfile.Leaf) error                            { return errVisitor }
func (failingVisitor) Large(boltfile.Pgid, []byte, *io.SectionReader) error { return errVisitor }
func (failingVisitor) Done() error                                          { return nil }

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
	for _, b := range [][]byte{
		build(t, 4096, false, fill("a", 3000, 100), fill("b", 3, 5<<20)),
		build(t, 4096, false, fill("a", 40_000, 100)),
	} {
		db, err := boltfile.Open(bytes.NewReader(b), int64(len(b)))
		require.NoError(t, err)
		ctx, cancel := context.WithCancelCause(context.Background())
		visited := 0
		_, _, err = db.Scan(ctx, boltfile.Options{Workers: 1, Read: func(int64) {
			if visited++; visited == 5 {
				cancel(nil)
			}
		}})
		require.ErrorIs(t, err, context.Canceled)
		require.Less(t, visited, 20)
	}
}

// cancelling is a visitor that ends the context at its first element.
type cancelling struct {
	boltfile.Visitor
	cancel context.CancelFunc
	seen   *int
}

func (v cancelling) Large(boltfile.Pgid, []byte, *io.SectionReader) error {
	*v.seen++
	v.cancel()
	return nil
}

// A leaf page of many MiB is not walked to its end.
func TestCancelledInLargeLeaf(t *testing.T) {
	b := build(t, 4096, false, fill("a", 2, 5<<20))
	db, err := boltfile.Open(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	seen := 0
	_, _, err = db.Scan(ctx, boltfile.Options{Visit: func(boltfile.Bucket, int) boltfile.Visitor {
		return cancelling{cancel: cancel, seen: &seen}
	}})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 1, seen)
}

// cancellingInside ends the context when it has read the beginning of a value.
type cancellingInside struct {
	boltfile.Visitor
	cancel context.CancelFunc
}

func (v cancellingInside) Large(_ boltfile.Pgid, _ []byte, value *io.SectionReader) error {
	if _, err := value.Read(make([]byte, 1)); err != nil {
		return err
	}
	v.cancel()
	_, err := io.Copy(io.Discard, value)
	return err
}

func (cancellingInside) Done() error { return nil }

// Nor is one large value read to its end.
func TestCancelledInLargeValue(t *testing.T) {
	b := build(t, 4096, false, fill("a", 1, 64<<20))
	db, err := boltfile.Open(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, _, err = db.Scan(ctx, boltfile.Options{Visit: func(boltfile.Bucket, int) boltfile.Visitor {
		return cancellingInside{cancel: cancel}
	}})
	require.ErrorIs(t, err, context.Canceled)
}

// endingAt ends the context when bytes from an offset on are read.
type endingAt struct {
	io.ReaderAt
	off    int64
	cancel context.CancelFunc
}

func (r endingAt) ReadAt(p []byte, off int64) (int, error) {
	if off >= r.off {
		r.cancel()
	}
	return r.ReaderAt.ReadAt(p, off)
}

// A freelist of many pages does not keep a cancelled scan.
func TestScanCancelledInFreelist(t *testing.T) {
	m := newFreelist(140_000)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	entries := int64(3*m.pageSize + 16 + 8)
	db, err := boltfile.Open(endingAt{bytes.NewReader(m.b), entries, cancel}, int64(len(m.b)))
	require.NoError(t, err)
	_, _, err = db.Scan(ctx, boltfile.Options{})
	require.ErrorIs(t, err, context.Canceled)
}

// leafFunc is a visitor that is called for each leaf page.
type leafFunc func() error

func (f leafFunc) Leaf(*boltfile.Leaf) error                            { return f() }
func (f leafFunc) Large(boltfile.Pgid, []byte, *io.SectionReader) error { return nil }
func (f leafFunc) Done() error                                          { return nil }

// Of two errors that of the first piece counts, also if it comes first.
func TestErrorOfTheFirstPiece(t *testing.T) {
	b := build(t, 4096, false, fill("a", 20, 100), fill("b", 20, 100))
	db, err := boltfile.Open(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	for range 100 {
		begun, failed := make(chan struct{}), make(chan struct{})
		first := leafFunc(func() error {
			<-begun
			close(failed)
			return errVisitor
		})
		second := leafFunc(func() error {
			close(begun)
			<-failed
			for range 100 {
				runtime.Gosched()
			}
			return errDisk
		})
		_, _, err := db.Scan(context.Background(), boltfile.Options{Workers: 2, Visit: func(b boltfile.Bucket, _ int) boltfile.Visitor {
			return []boltfile.Visitor{first, second}[b.Index]
		}})
		require.ErrorIs(t, err, errVisitor)
	}
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
	require.ErrorContains(t, want, "header has page number 1")
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
		m.header(id, typeMeta, 0)
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

func (m forge) header(id int, flags, count uint16) {
	m.set64(id, headID, uint64(id))
	m.set16(id, headFlags, flags)
	m.set16(id, headCount, count)
}

// branch makes a branch page with keys of one byte.
func (m forge) branch(id int, keys string, children ...int) {
	n := len(children)
	m.header(id, typeBranch, uint16(n))
	for i, child := range children {
		m.set32(id, branchPos(i), uint32(16*(n-i)+i))
		m.set32(id, branchKey(i), 1)
		m.set64(id, branchPgid(i), uint64(child))
	}
	copy(m.page(id)[16+16*n:], keys)
}

// bucket makes page id a leaf with one bucket whose root is the other page.
func (m forge) bucket(id, root int) {
	m.header(id, typeLeaf, 1)
	m.set32(id, leafFlags(0), 1)
	m.set32(id, leafPos(0), 16)
	m.set32(id, leafKey(0), 1)
	m.set32(id, leafValue(0), 16)
	m.page(id)[32] = 'k'
	m.set64(id, 33, uint64(root))
}

func (m forge) leaf(id int) { m.header(id, typeLeaf, 0) }

// elements makes a leaf page of n elements whose values start with value.
func (m forge) elements(id, n int, flags uint32, value []byte, valueSize int) {
	const keySize = 4
	m.header(id, typeLeaf, uint16(n))
	leaf := m.b[id*m.pageSize:]
	at := 16 + 16*n
	for i := range n {
		binary.NativeEndian.PutUint32(leaf[leafFlags(i):], flags)
		binary.NativeEndian.PutUint32(leaf[leafPos(i):], uint32(at-16-16*i))
		binary.NativeEndian.PutUint32(leaf[leafKey(i):], keySize)
		binary.NativeEndian.PutUint32(leaf[leafValue(i):], uint32(valueSize))
		binary.BigEndian.PutUint32(leaf[at:], uint32(i))
		copy(leaf[at+keySize:], value)
		at += keySize + valueSize
	}
	m.set32(id, headOverflow, uint32((at-1)/m.pageSize))
}

// BenchmarkScan walks a database, BenchmarkReference has bbolt walk and check it.
func BenchmarkScan(b *testing.B) {
	data := build(b, 4096, false, fill("key", 40_000, 1000))
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		db, err := boltfile.Open(bytes.NewReader(data), int64(len(data)))
		require.NoError(b, err)
		_, _, err = db.Scan(b.Context(), boltfile.Options{})
		require.NoError(b, err)
	}
}

func BenchmarkReference(b *testing.B) {
	data := build(b, 4096, false, fill("key", 40_000, 1000))
	path := filepath.Join(b.TempDir(), "db")
	require.NoError(b, os.WriteFile(path, data, 0o600))
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
		require.NoError(b, err)
		require.NoError(b, db.View(func(tx *bolt.Tx) error {
			for err := range tx.Check() {
				return err
			}
			return nil
		}))
		require.NoError(b, db.Close())
	}
}
