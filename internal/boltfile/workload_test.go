package boltfile_test

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/short"
)

var workloads = flag.Int("workloads", 25, "how many random histories of a database are read after each transaction")

// What bbolt writes is accepted, whatever happened to the database before: the
// rules for pages that it could read and does not write are not too strict.
func TestRandomWorkloads(t *testing.T) {
	for seed := range short.Or(*workloads, 3) {
		w := &workload{Rand: rand.New(rand.NewPCG(2026, uint64(seed)))}
		pageSize := 1024 << w.IntN(5)
		db, err := bolt.Open(filepath.Join(snaptest.MemoryDir(t), "db"), 0o600,
			&bolt.Options{PageSize: pageSize, NoSync: true, NoFreelistSync: w.IntN(2) == 0})
		require.NoError(t, err)
		w.keys = 1 + w.IntN(5000)
		for range 12 {
			tx, err := db.Begin(true)
			require.NoError(t, err)
			w.change(t, tx)
			if w.IntN(8) == 0 {
				require.NoError(t, tx.Rollback())
			} else {
				require.NoError(t, tx.Commit())
			}
			var b bytes.Buffer
			require.NoError(t, db.View(func(tx *bolt.Tx) error {
				_, err := tx.WriteTo(&b)
				return err
			}))
			got, err := scanBytes(b.Bytes())
			require.NoError(t, err, "seed %d", seed)
			require.Equal(t, reference(t, b.Bytes()), got, "seed %d", seed)
		}
		require.NoError(t, db.Close())
	}
}

type workload struct {
	*rand.Rand
	keys int
}

func (w *workload) key() []byte {
	n := w.IntN(w.keys)
	return append([]byte{byte(n >> 8), byte(n)}, bytes.Repeat([]byte{'k'}, n%37)...)
}

// change does one kind of thing to one bucket, many times.
func (w *workload) change(t *testing.T, tx *bolt.Tx) {
	t.Helper()
	name := []byte{'a' + byte(w.IntN(3))}
	if w.IntN(20) == 0 && tx.Bucket(name) != nil {
		require.NoError(t, tx.DeleteBucket(name))
		return
	}
	b, err := tx.CreateBucketIfNotExists(name)
	require.NoError(t, err)
	for w.IntN(3) == 0 {
		b, err = b.CreateBucketIfNotExists([]byte("nested"))
		require.NoError(t, err)
	}
	b.FillPercent = []float64{0.1, 0.5, 0.9, 1}[w.IntN(4)]
	n := w.IntN(3000)
	switch w.IntN(4) {
	case 0: // a stretch goes
		c := b.Cursor()
		k, v := c.Seek(w.key())
		for i := 0; i < n && k != nil; i++ {
			if v != nil {
				require.NoError(t, c.Delete())
				k, v = c.Seek(k)
			} else {
				k, v = c.Next()
			}
		}
	case 1: // single ones go
		for range n {
			require.NoError(t, b.Delete(w.key()))
		}
	default:
		size := []int{0, 10, 100, 700}[w.IntN(4)]
		for range n {
			require.NoError(t, b.Put(w.key(), make([]byte, w.IntN(size+1))))
		}
	}
}
