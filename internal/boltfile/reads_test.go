package boltfile_test

import (
	"bytes"
	"context"
	"io"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// No read may fail unnoticed, whatever it is for.
func TestEveryReadFails(t *testing.T) {
	for name, b := range map[string][]byte{
		"branches":                   build(t, 1024, false, fill("a", 3000, 100)),
		"inline":                     build(t, 4096, false, fill("a", 2, 10)),
		"nested":                     build(t, 4096, false, nested),
		"freelist":                   build(t, 4096, true, fill("a", 3000, 100), drop("a", 3000, 2)),
		"long":                       newFreelist(70_000).b,
		"large":                      build(t, 4096, false, fill("a", 2, 5<<20)),
		"buckets":                    build(t, 4096, false, largeAndNested),
		"64 KiB":                     build(t, 64<<10, false, fill("a", 3000, 100)),
		"no first meta page":         withoutMeta(build(t, 1024, false, fill("a", 300, 100)), 0),
		"no first meta page, 64 KiB": withoutMeta(build(t, 64<<10, false, fill("a", 300, 100)), 0),
		"no second meta page":        withoutMeta(build(t, 4096, false, fill("a", 300, 100)), 1),
	} {
		t.Run(name, func(t *testing.T) {
			for _, fault := range []error{syscall.EIO, io.EOF} {
				for k := int64(0); ; k += int64(short.Step(1, 4)) {
					r := &snaptest.FaultyReaderAt{ReaderAt: bytes.NewReader(b), FailAt: k, Err: fault}
					if db, err := boltfile.Open(r, int64(len(b))); err != nil {
						require.Nil(t, db)
						requireReadFault(t, err, fault, k)
						continue
					}
					r = &snaptest.FaultyReaderAt{ReaderAt: bytes.NewReader(b), FailAt: k, Err: fault}
					_, _, err := scan(r, int64(len(b)))
					if !r.Hit() {
						require.NoError(t, err)
						require.GreaterOrEqual(t, k, int64(3))
						break
					}
					requireReadFault(t, err, fault, k)
				}
			}
		})
	}
}

// readAll is a visitor that reads the large values, once.
type readAll struct{ boltfile.Visitor }

func (readAll) Leaf(*boltfile.Leaf) error { return nil }
func (readAll) Done() error               { return nil }
func (readAll) Large(_ boltfile.Pgid, _ []byte, value *io.SectionReader) error {
	_, err := io.Copy(io.Discard, value)
	return err
}

// A leaf page is read once, however many overflow pages it has, and counted as
// often.
func TestLeafPagesAreReadOnce(t *testing.T) {
	mixed := func(tx *bolt.Tx) error { // large and small values in turn
		b, err := tx.CreateBucket([]byte("a"))
		for i := byte(0); err == nil && i < 4; i++ { // which bbolt leaves in one page
			err = b.Put([]byte{i}, make([]byte, 100+int(i%2)*(5<<20)))
		}
		return err
	}
	for name, b := range map[string][]byte{
		"no overflow page":   build(t, 4096, false, fill("a", 10_000, 100)),
		"one overflow page":  build(t, 4096, false, fill("a", 2000, 5000)),
		"many":               build(t, 4096, false, fill("a", 200, 100_000)),
		"more than a window": build(t, 4096, false, fill("a", 20, 1_000_000)),
		"not held in memory": build(t, 4096, false, fill("a", 4, 5<<20)),
		"small and large":    build(t, 4096, false, mixed),
	} {
		t.Run(name, func(t *testing.T) {
			r := &snaptest.CountingReaderAt{ReaderAt: bytes.NewReader(b)}
			db, err := boltfile.Open(r, int64(len(b)))
			require.NoError(t, err)
			r.N.Store(0)
			var counted int64
			usage, _, err := db.Scan(context.Background(), boltfile.Options{
				Visit: func(boltfile.Bucket, int) boltfile.Visitor { return readAll{} },
				Read:  func(n int64) { counted += n },
			})
			require.NoError(t, err)
			free := int64(0)
			for range usage.Free() {
				free++
			}
			inUse := db.Size() - free*db.PageSize()
			require.LessOrEqual(t, r.N.Load(), inUse+10*db.PageSize())
			require.Equal(t, r.N.Load(), counted)
		})
	}
}

// withoutMeta damages a meta page.
func withoutMeta(b []byte, id int) []byte {
	m := newImage(b)
	m.field(id, 16)[0]++
	return m.b
}

func requireReadFault(t *testing.T, err, fault error, k int64) {
	t.Helper()
	if fault != io.EOF {
		require.ErrorIs(t, err, fault, "read %d", k)
		return
	}
	var short *boltfile.ShortError
	require.ErrorAs(t, err, &short, "read %d", k)
}
