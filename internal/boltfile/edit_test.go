package boltfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/snaptest/short"
)

// memory is a database in memory that grows when it is written to.
type memory struct{ b []byte }

func (m *memory) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(m.b).ReadAt(p, off) }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if end := int(off) + len(p); end > len(m.b) {
		m.b = append(m.b, make([]byte, end-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}

// edited returns b after one transaction, written to w where that is not nil.
func edited(tb testing.TB, b []byte, w io.WriterAt, change func(*boltfile.Edit) error) ([]byte, error) {
	tb.Helper()
	m := &memory{bytes.Clone(b)}
	db, err := boltfile.Open(m, int64(len(b)))
	require.NoError(tb, err)
	_, buckets, err := db.Scan(tb.Context(), boltfile.Options{})
	require.NoError(tb, err)
	if w == nil {
		w = m
	}
	e := db.Edit(tb.Context(), w, buckets)
	if err := change(e); err != nil {
		return nil, err
	}
	err = e.Commit()
	return m.b, err
}

// records returns n records in key order, with values of up to size bytes.
func records(n, size int) []boltfile.Record {
	list := make([]boltfile.Record, n)
	for i := range list {
		list[i] = boltfile.Record{Key: fmt.Appendf(nil, "new-%06d", i), Value: bytes.Repeat([]byte{byte(i)}, size*(i+1)/n)}
	}
	return list
}

// replaceInBbolt does with bbolt what Replace does.
func replaceInBbolt(tx *bolt.Tx, name string, list []boltfile.Record) error {
	if tx.Bucket([]byte(name)) != nil {
		if err := tx.DeleteBucket([]byte(name)); err != nil {
			return err
		}
	}
	b, err := tx.CreateBucket([]byte(name))
	for _, r := range list {
		err = errors.Join(err, b.Put(r.Key, r.Value))
	}
	return err
}

// requireWritable has bbolt check the database, write to it and check it again.
func requireWritable(tb testing.TB, b []byte) {
	tb.Helper()
	path := writeFile(tb, b)
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true, NoFreelistSync: true})
	require.NoError(tb, err)
	for i := range 3 {
		require.NoError(tb, db.Update(func(tx *bolt.Tx) error {
			return tx.ForEach(func(_ []byte, b *bolt.Bucket) error {
				var nested bool
				if err := b.ForEachBucket(func([]byte) error { nested = true; return nil }); err != nil || nested {
					return err
				}
				k, _ := b.Cursor().First()
				l, _ := b.Cursor().Last()
				k, l = bytes.Clone(k), bytes.Clone(l)
				err := b.Put(append(l[:min(len(l), 1000)], byte(i)), make([]byte, 3000))
				if i > 0 && k != nil {
					err = errors.Join(err, b.Delete(k))
				}
				return err
			})
		}))
	}
	require.NoError(tb, db.Close())
	after, err := os.ReadFile(path)
	require.NoError(tb, err)
	requireSameAsBbolt(tb, after)
}

// An Edit leaves what bbolt leaves after the same changes.
func TestEdit(t *testing.T) {
	dbs := map[string][]byte{
		"free pages":         build(t, 4096, false, fill("a", 4000, 60), drop("a", 4000, 2), fill("b", 500, 3000), drop("b", 500, 3)),
		"with a freelist":    build(t, 4096, true, fill("a", 4000, 60), drop("a", 4000, 2)),
		"1 KiB pages":        build(t, 1024, false, fill("a", 4000, 60), empty("b", "c")),
		"64 KiB pages":       build(t, 64<<10, false, fill("a", 4000, 60)),
		"inline":             build(t, 4096, false, fill("a", 3, 10), fill("c", 1, 1)),
		"empty":              build(t, 4096, false),
		"empty root page":    build(t, 4096, false, fill("a", 500, 100), drop("a", 500, 1)),
		"nested elsewhere":   build(t, 4096, false, nested),
		"first meta counts":  buildFile(t, 4096, false, fill("a", 100, 60)),
		"second meta counts": buildFile(t, 4096, false, fill("a", 100, 60), empty("b")),
	}
	for name, b := range dbs {
		for size, list := range map[string][]boltfile.Record{
			"nothing": nil, "a little": records(3, 20), "as much as is inline": records(1, 4096/4-16-16-10),
			"one byte more": records(1, 4096/4-16-16-10+1), "pages": records(5000, 300), "large values": records(7, 100_000),
		} {
			t.Run(name+", "+size, func(t *testing.T) {
				if size == "pages" || size == "large values" {
					short.Skip(t, "writes a megabyte each time")
				}
				last := boltfile.Record{Key: []byte("zzzz"), Value: make([]byte, 5)}
				got, err := edited(t, b, nil, func(e *boltfile.Edit) error {
					return errors.Join(e.Append("a", last), e.Replace("b", list), e.Replace("new", list))
				})
				require.NoError(t, err)

				path := writeFile(t, b)
				theirs, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true, NoFreelistSync: true})
				require.NoError(t, err)
				require.NoError(t, theirs.Update(func(tx *bolt.Tx) error {
					a, err := tx.CreateBucketIfNotExists([]byte("a"))
					return errors.Join(err, a.Put(last.Key, last.Value), replaceInBbolt(tx, "b", list), replaceInBbolt(tx, "new", list))
				}))
				require.NoError(t, theirs.Close())
				want, err := os.ReadFile(path)
				require.NoError(t, err)

				require.Equal(t, reference(t, want), reference(t, got))
				requireSameAsBbolt(t, got)
				requireWritable(t, got)

				again, err := edited(t, b, nil, func(e *boltfile.Edit) error {
					return errors.Join(e.Append("a", last), e.Replace("b", list), e.Replace("new", list))
				})
				require.NoError(t, err)
				require.True(t, bytes.Equal(got, again), "the same changes make the same bytes")
			})
		}
	}
}

// Records appended one by one make the branch pages at the right edge grow, be
// split, and the tree become deeper.
func TestEditAppendsOneByOne(t *testing.T) {
	for keySize, appends := range map[int]int{12: 300, 300: 300, 2000: 100, 32768: 40} {
		appends = short.Or(appends, 40)
		b := build(t, 1024, false, fill("a", 1, 10))
		var want []string
		for i := range appends {
			r := boltfile.Record{Key: make([]byte, keySize), Value: []byte{byte(i)}}
			copy(r.Key, fmt.Sprintf("x%011d", i))
			var err error
			b, err = edited(t, b, nil, func(e *boltfile.Edit) error { return e.Append("a", r) })
			require.NoError(t, err)
			want = append(want, string(r.Key)+"="+string(r.Value))
			if i%20 == 19 {
				got := reference(t, b)["a"]
				require.Equal(t, want, got[1:])
				requireSameAsBbolt(t, b)
			}
		}
		requireWritable(t, b)
	}
}

// However a database came about, it can be edited.
func TestEditOfRandomWorkloads(t *testing.T) {
	for seed := range short.Or(*workloads, 5) {
		w := &workload{Rand: rand.New(rand.NewPCG(2027, uint64(seed))), keys: 3000}
		b := build(t, 1024<<w.IntN(5), w.IntN(2) == 0)
		for range 3 {
			path := writeFile(t, b)
			db, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true, NoFreelistSync: w.IntN(2) == 0})
			require.NoError(t, err)
			for range 3 {
				require.NoError(t, db.Update(func(tx *bolt.Tx) error { w.change(t, tx); return nil }))
			}
			require.NoError(t, db.Close())
			before, err := os.ReadFile(path)
			require.NoError(t, err)

			list := records(1+w.IntN(200), w.IntN(3000))
			name := string('a' + byte(w.IntN(5)))
			last := boltfile.Record{Key: []byte("\xff\xff"), Value: []byte("v")}
			b, err = edited(t, before, nil, func(e *boltfile.Edit) error {
				if err := e.Replace(name, list); err != nil {
					return err
				}
				return e.Append("always last", last)
			})
			require.NoError(t, err, "seed %d", seed)

			want := reference(t, before)
			got := reference(t, b)
			for bucket := range want {
				if bucket != name && bucket != "always last" {
					require.Equal(t, want[bucket], got[bucket], "seed %d", seed)
				}
			}
			require.Len(t, got[name], len(list))
			requireSameAsBbolt(t, b, "seed %d", seed)
			requireWritable(t, b)

			b, err = edited(t, b, nil, func(e *boltfile.Edit) error { return e.Replace("always last", nil) })
			require.NoError(t, err)
		}
	}
}

// What an Edit reads before it changes anything.
func TestEditReads(t *testing.T) {
	b := build(t, 4096, false, fill("large", 3000, 100), fill("inline", 3, 5), empty("empty"),
		fill("emptied", 900, 90), drop("emptied", 900, 1), fill("huge", 2, 9<<20))
	_, err := edited(t, b, nil, func(e *boltfile.Edit) error {
		require.True(t, e.Has("large"))
		require.False(t, e.Has("larg"))
		require.False(t, e.Has("z"))
		for bucket, want := range map[string]string{
			"large": "key-0002999", "inline": "key-0000002", "empty": "", "emptied": "", "none": "", "huge": "key-0000001",
		} {
			key, err := e.LastKey(bucket)
			require.NoError(t, err)
			require.Equal(t, want, string(key))
			if bucket == "huge" {
				continue
			}
			list, err := e.Records(bucket)
			require.NoError(t, err)
			got := []string{}
			for _, r := range list {
				got = append(got, string(r.Key)+"="+string(r.Value))
			}
			require.Equal(t, append([]string{}, reference(t, b)[bucket]...), got)
		}
		var corrupt *boltfile.CorruptError
		_, err := e.Records("huge")
		require.ErrorAs(t, err, &corrupt)
		require.ErrorContains(t, err, `bucket "huge": more than 16 MiB`)
		return nil
	})
	require.NoError(t, err)
	db, err := boltfile.Open(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	key, err := db.LastKey(t.Context(), "huge")
	require.NoError(t, err)
	require.Equal(t, "key-0000001", string(key))
	key, err = db.LastKey(t.Context(), "none")
	require.NoError(t, err)
	require.Nil(t, key)
}

// A record of 9 MiB is not read to find out the key before it, and a record is
// put behind it.
func TestEditBehindLargeRecords(t *testing.T) {
	b := build(t, 4096, false, fill("a", 3, 9<<20))
	read := &countingMemory{memory: memory{bytes.Clone(b)}}
	db, err := boltfile.Open(read, int64(len(b)))
	require.NoError(t, err)
	_, buckets, err := db.Scan(t.Context(), boltfile.Options{})
	require.NoError(t, err)
	read.n = 0
	e := db.Edit(t.Context(), read, buckets)
	require.NoError(t, e.Append("a", boltfile.Record{Key: []byte("z")}))
	require.NoError(t, e.Commit())
	require.Less(t, read.n, 64<<10)
	requireSameAsBbolt(t, read.b)
	requireWritable(t, read.b)
}

type countingMemory struct {
	memory
	n int // bytes read
}

func (m *countingMemory) ReadAt(p []byte, off int64) (int, error) {
	n, err := m.memory.ReadAt(p, off)
	m.n += n
	return n, err
}

// A bucket where a record should be, a key that does not follow, a transaction
// id without a next one.
func TestEditRefuses(t *testing.T) {
	b := build(t, 4096, false, nested, fill("a", 1000, 50))
	var corrupt *boltfile.CorruptError
	_, err := edited(t, b, nil, func(e *boltfile.Edit) error {
		for bucket := range reference(t, b) {
			if bucket != "a" {
				_, err := e.Records(bucket)
				require.ErrorAs(t, err, &corrupt, bucket)
				require.ErrorContains(t, err, "is a bucket, not a record")
			}
		}
		for _, key := range []string{"key-0000999", "key", "a"} {
			require.ErrorContains(t, e.Append("a", boltfile.Record{Key: []byte(key)}), "does not follow")
		}
		return nil
	})
	require.NoError(t, err)

	for _, txid := range []uint64{1<<64 - 1, 1<<64 - 2} { // the server needs one, too
		m := newImage(b)
		m.set64(m.live(), metaTxid, txid)
		m.sum(m.live())
		_, err := edited(t, m.b, nil, func(*boltfile.Edit) error { return nil })
		require.ErrorAs(t, err, &corrupt)
	}
}

// limitedWriter fails after some writes, or writes less than it is asked to.
type limitedWriter struct {
	w      io.WriterAt
	writes int
	short  bool
}

func (w *limitedWriter) WriteAt(p []byte, off int64) (int, error) {
	switch w.writes--; {
	case w.writes >= 0:
		return w.w.WriteAt(p, off)
	case w.short:
		return w.w.WriteAt(p[:len(p)-1], off)
	}
	return 0, errDisk
}

// Whichever write fails, the error comes back, and the database is as it was
// until the first meta page is written.
func TestEditFails(t *testing.T) {
	b := build(t, 1024, false, fill("a", 4000, 60))
	before := reference(t, b)
	change := func(e *boltfile.Edit) error {
		if err := e.Append("a", boltfile.Record{Key: []byte("z")}); err != nil {
			return err
		}
		return e.Replace("b", records(20, 3000))
	}
	all := &limitedWriter{w: &memory{bytes.Clone(b)}, writes: 1000}
	_, err := edited(t, b, all, change)
	require.NoError(t, err)
	writes := 1000 - all.writes
	require.Greater(t, writes, 20)
	for n := range writes {
		for _, short := range []bool{false, true} {
			m := &memory{bytes.Clone(b)}
			_, err := edited(t, b, &limitedWriter{m, n, short}, change)
			if short {
				require.ErrorIs(t, err, io.ErrShortWrite)
			} else {
				require.ErrorIs(t, err, errDisk)
			}
			if n < writes-2 {
				require.Equal(t, before, reference(t, m.b[:len(m.b)&^1023]))
			}
		}
	}
}

// sparse is a database of any size of which only pages that were written exist.
type sparse struct {
	pages map[int64][]byte
	size  int64
}

const sparsePage = 4096

func (s *sparse) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && off < s.size {
		page := s.pages[off/sparsePage]
		if page == nil {
			page = make([]byte, sparsePage)
		}
		m := copy(p[n:], page[off%sparsePage:])
		n, off = n+m, off+int64(m)
	}
	if n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (s *sparse) WriteAt(p []byte, off int64) (int, error) {
	for i := 0; i < len(p); i += sparsePage { // whole pages
		s.pages[(off+int64(i))/sparsePage] = bytes.Clone(p[i : i+sparsePage])
	}
	s.size = max(s.size, off+int64(len(p)))
	return len(p), nil
}

// Offsets beyond 4 GiB, on 32 bits as well.
func TestEditOfHugeDatabase(t *testing.T) {
	m := newImage(build(t, sparsePage, false, fill("a", 1000, 60), fill("b", 1000, 60)))
	const highWater = 5 << 30 / sparsePage
	for id := range 2 {
		m.set64(id, metaHighWater, highWater)
		m.sum(id)
	}
	huge := &sparse{pages: map[int64][]byte{}}
	_, _ = huge.WriteAt(m.b, 0)
	huge.size = highWater * sparsePage

	db, err := boltfile.Open(huge, huge.size)
	require.NoError(t, err)
	_, buckets, err := db.Scan(t.Context(), boltfile.Options{})
	require.NoError(t, err)
	e := db.Edit(t.Context(), huge, buckets)
	require.NoError(t, e.Append("a", boltfile.Record{Key: []byte("z"), Value: []byte("1")}))
	require.NoError(t, e.Replace("b", records(300, 900)))
	require.NoError(t, e.Commit())

	require.Greater(t, huge.size, int64(5<<30))
	got, _, err := scan(huge, huge.size)
	require.NoError(t, err)
	require.Equal(t, "z=1", got["a"][1000])
	require.Len(t, got["b"], 300)
}
