package boltfile_test

import (
	"errors"
	"fmt"
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
		"second meta counts": build(t, 4096, false, fill("a", 100, 60), empty("b")),
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

	m := newImage(b)
	m.set64(m.live(), metaTxid, 1<<64-1)
	m.sum(m.live())
	path := writeFile(t, m.b)
	last, err := os.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, last.Close()) }()
	db, err = boltfile.Open(last, int64(len(b)))
	require.NoError(t, err)
	var corrupt *boltfile.CorruptError
	require.ErrorAs(t, db.SeedFreelist(&failingWriterAt{9}, usage), &corrupt)
}
