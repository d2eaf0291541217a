package boltfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"etcd.example/snapshot/internal/boltfile"
)

// A seeded database opens without a walk, is written to, and is sound after.
func TestSeedFreelist(t *testing.T) {
	for name, b := range map[string][]byte{
		"free pages":         build(t, 4096, false, fill("a", 4000, 60), drop("a", 4000, 2), fill("b", 500, 3000), drop("b", 500, 3)),
		"thousands of them":  build(t, 4096, false, fill("a", 5000, 3000), drop("a", 5000, 1)),
		"none":               build(t, 4096, false, fill("a", 3000, 100)),
		"with a freelist":    build(t, 4096, true, fill("a", 4000, 60), drop("a", 4000, 2)),
		"1 KiB pages":        build(t, 1024, false, fill("a", 4000, 60), drop("a", 4000, 2)),
		"64 KiB pages":       build(t, 64<<10, false, fill("a", 4000, 60), drop("a", 4000, 2)),
		"first meta counts":  buildFile(t, 4096, false, fill("a", 100, 60)),
		"second meta counts": buildFile(t, 4096, false, fill("a", 100, 60), empty("b")),
	} {
		t.Run(name, func(t *testing.T) {
			want := reference(t, b)
			f, err := os.OpenFile(writeFile(t, b), os.O_RDWR, 0)
			require.NoError(t, err)
			db, err := boltfile.Open(f, int64(len(b)))
			require.NoError(t, err)
			usage, _, err := db.Scan(t.Context(), boltfile.Options{})
			require.NoError(t, err)
			require.NoError(t, db.SeedFreelist(f, usage))
			require.NoError(t, f.Close())

			edited, err := bolt.Open(f.Name(), 0o600, &bolt.Options{NoFreelistSync: true})
			require.NoError(t, err)
			require.LessOrEqual(t, edited.Stats().FreePageN, 4000)
			for i := range 5 {
				require.NoError(t, edited.Update(func(tx *bolt.Tx) error {
					b, err := tx.CreateBucketIfNotExists([]byte("new"))
					if err != nil {
						return err
					}
					return errors.Join(
						b.Put(fmt.Appendf(nil, "%d", i), make([]byte, 10_000)),
						tx.Bucket([]byte("a")).Put([]byte("zzz"), []byte{byte(i)}))
				}))
			}
			require.NoError(t, edited.Close())

			after, err := os.ReadFile(f.Name())
			require.NoError(t, err)
			got := reference(t, after) // bbolt's own check finds nothing, too
			require.Len(t, got["new"], 5)
			require.Equal(t, "zzz=\x04", got["a"][len(got["a"])-1])
			want["a"] = append(want["a"], "zzz=\x04")
			want["new"] = got["new"]
			require.Equal(t, want, got)
			ours, err := scanBytes(after)
			require.NoError(t, err)
			require.Equal(t, got, ours)
		})
	}
}

// patched keeps what is written to a database in memory.
type patched struct{ b []byte }

func (p patched) WriteAt(b []byte, off int64) (int, error) {
	p.b = p.b[off:]
	return copy(p.b[:len(b)], b), nil
}

// seed seeds a copy of b, to which a page may be added.
func seed(t *testing.T, b []byte) (*boltfile.DB, *boltfile.Usage, []byte) {
	t.Helper()
	db, err := boltfile.Open(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	usage, _, err := db.Scan(t.Context(), boltfile.Options{})
	require.NoError(t, err)
	after := append(bytes.Clone(b), make([]byte, db.PageSize())...)
	require.NoError(t, db.SeedFreelist(patched{after}, usage))
	return db, usage, after
}

// One meta page is written, where bbolt would write that transaction; the one
// that counted stays as it was, for the case that a crash tears the new one.
func TestSeedFreelistWritesOneMetaPage(t *testing.T) {
	for live, b := range [][]byte{
		buildFile(t, 4096, false, fill("a", 10, 60)),
		buildFile(t, 4096, false, fill("a", 10, 60), empty("b")),
	} {
		before := newImage(b)
		require.Equal(t, live, before.live())
		_, _, seeded := seed(t, b)
		after := newImage(seeded)
		next := before.get64(before.live(), metaTxid) + 1
		at := int(next % 2)
		require.Equal(t, next, after.get64(at, metaTxid))
		require.Equal(t, at, after.live())
		require.Equal(t, before.page(1-at), after.page(1-at))
	}
}

// Where no page is free the list gets a page of its own, behind the last one.
func TestSeedFreelistWithoutFreePages(t *testing.T) {
	m := newForge(4)
	m.bucket(2, 3)
	m.leaf(3)
	db, _, after := seed(t, m.b)
	require.Equal(t, boltfile.Pgid(5), db.HighWater())
	requireSameAsBbolt(t, after)
	require.Equal(t, 4, newImage(after).freelist())
}

// A freelist of any length gives way to a short one.
func TestSeedFreelistReplacesOne(t *testing.T) {
	b := build(t, 4096, true, fill("a", 20_000, 1000), drop("a", 20_000, 1))
	before := newImage(b)
	require.Greater(t, before.count(before.freelist()), 5000)
	_, _, seeded := seed(t, b)
	after := newImage(seeded)
	require.NotEqual(t, before.freelist(), after.freelist())
	require.Less(t, after.count(after.freelist()), 500)
}

type shortWriterAt struct{}

func (shortWriterAt) WriteAt(p []byte, _ int64) (int, error) { return len(p) - 1, nil }

type failingWriterAt struct{ writes int }

func (w *failingWriterAt) WriteAt(p []byte, _ int64) (int, error) {
	if w.writes--; w.writes < 0 {
		return 0, errDisk
	}
	return len(p), nil
}

func TestSeedFreelistFails(t *testing.T) {
	b := build(t, 4096, false, fill("a", 100, 100))
	f, err := os.Open(writeFile(t, b))
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	db, err := boltfile.Open(f, int64(len(b)))
	require.NoError(t, err)
	usage, _, err := db.Scan(t.Context(), boltfile.Options{})
	require.NoError(t, err)
	for writes := range 2 {
		require.ErrorIs(t, db.SeedFreelist(&failingWriterAt{writes}, usage), errDisk)
	}

	require.ErrorIs(t, db.SeedFreelist(shortWriterAt{}, usage), io.ErrShortWrite)

	// bbolt, too, needs a transaction id after that of the seed.
	for _, txid := range []uint64{1<<64 - 1, 1<<64 - 2} {
		m := newImage(b)
		m.set64(m.live(), metaTxid, txid)
		m.sum(m.live())
		db, err = boltfile.Open(bytes.NewReader(m.b), int64(len(b)))
		require.NoError(t, err)
		var corrupt *boltfile.CorruptError
		require.ErrorAs(t, db.SeedFreelist(&failingWriterAt{9}, usage), &corrupt)
	}
}
