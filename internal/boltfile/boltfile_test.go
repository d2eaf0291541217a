package boltfile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/snaptest/short"
)

// content is every element of every bucket of the top level, in order.
type content map[string][]string

// collector gathers the content that a scan shows.
type collector struct {
	mu     sync.Mutex
	pieces map[string]map[int][]string
}

type pieceCollector struct {
	c      *collector
	bucket string
	piece  int
	got    []string
}

func (c *collector) visit(b boltfile.Bucket, piece int) boltfile.Visitor {
	return &pieceCollector{c: c, bucket: b.Name, piece: piece}
}

func (p *pieceCollector) Leaf(l *boltfile.Leaf) error {
	var data []byte
	for i := range l.Len() {
		value := l.Value(i)
		data = append(append(data, l.Key(i)...), value...)
		if l.IsBucket(i) {
			value = nil
		}
		p.got = append(p.got, string(l.Key(i))+"="+string(value))
	}
	if !bytes.Equal(data, l.Data()) {
		return errors.New("Data is not the elements in one piece")
	}
	return nil
}

func (p *pieceCollector) Large(_ boltfile.Pgid, key []byte, value *io.SectionReader) error {
	if value == nil { // a nested bucket
		p.got = append(p.got, string(key)+"=")
		return nil
	}
	v, err := io.ReadAll(value)
	p.got = append(p.got, string(key)+"="+string(v))
	return err
}

func (p *pieceCollector) Done() error {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if p.c.pieces[p.bucket] == nil {
		p.c.pieces[p.bucket] = map[int][]string{}
	}
	p.c.pieces[p.bucket][p.piece] = p.got
	return nil
}

// scan reads a database with this package.
func scan(r io.ReaderAt, size int64) (content, *boltfile.Usage, error) {
	db, err := boltfile.Open(r, size)
	if err != nil {
		return nil, nil, err
	}
	c := &collector{pieces: map[string]map[int][]string{}}
	usage, buckets, err := db.Scan(context.Background(), boltfile.Options{Visit: c.visit})
	if err != nil {
		return nil, nil, err
	}
	got := content{}
	for i, b := range buckets {
		if b.Index != i {
			return nil, nil, fmt.Errorf("bucket %d has index %d", i, b.Index)
		}
		got[b.Name] = []string{}
		for i := range len(c.pieces[b.Name]) {
			got[b.Name] = append(got[b.Name], c.pieces[b.Name][i]...)
		}
	}
	return got, usage, nil
}

func scanBytes(b []byte) (content, error) {
	c, _, err := scan(bytes.NewReader(b), int64(len(b)))
	return c, err
}

// reference reads a database with bbolt and has bbolt check it.
func reference(tb testing.TB, b []byte) content {
	tb.Helper()
	db, err := bolt.Open(writeFile(tb, b), 0o600, &bolt.Options{ReadOnly: true})
	require.NoError(tb, err)
	defer func() { require.NoError(tb, db.Close()) }()
	want := content{}
	require.NoError(tb, db.View(func(tx *bolt.Tx) error {
		var errs []error
		for err := range tx.Check() {
			errs = append(errs, err)
		}
		if len(errs) > 0 {
			return errors.Join(errs...)
		}
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			list := []string{}
			err := b.ForEach(func(k, v []byte) error {
				list = append(list, string(k)+"="+string(v))
				return nil
			})
			want[string(name)] = list
			return err
		})
	}))
	return want
}

func nested(tx *bolt.Tx) error {
	outer, err := tx.CreateBucket([]byte("outer"))
	if err != nil {
		return err
	}
	for i := range 40 {
		inner, err := outer.CreateBucket(fmt.Appendf(nil, "inner-%02d", i))
		if err != nil {
			return err
		}
		for j := range 3 * i { // from inline to several pages
			if err := inner.Put(fmt.Appendf(nil, "%04d", j), make([]byte, 60)); err != nil {
				return err
			}
		}
		if i%10 == 0 {
			deep, err := inner.CreateBucket([]byte("deep"))
			if err != nil {
				return err
			}
			if err := deep.Put([]byte("k"), make([]byte, 3000)); err != nil {
				return err
			}
		}
	}
	return nil
}

func empty(names ...string) func(*bolt.Tx) error {
	return func(tx *bolt.Tx) error {
		for _, name := range names {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	}
}

// Databases of every shape hold what bbolt says they hold.
func TestScanAgreesWithBbolt(t *testing.T) {
	type shape struct {
		name string
		txs  []func(*bolt.Tx) error
	}
	shapes := []shape{
		{"nothing", nil},
		{"empty buckets", []func(*bolt.Tx) error{empty("a", "b", "c")}},
		{"inline", []func(*bolt.Tx) error{fill("a", 3, 10), empty("b"), fill("c", 1, 1)}},
		{"one leaf", []func(*bolt.Tx) error{fill("a", 10, 80)}},
		{"two levels", []func(*bolt.Tx) error{fill("a", 1000, 80)}},
		{"three levels", []func(*bolt.Tx) error{fill("a", 20_000, 30), fill("b", 3000, 100)}},
		{"overflow", []func(*bolt.Tx) error{fill("a", 20, 200_000), fill("b", 10, 1500)}},
		{"exactly full pages", []func(*bolt.Tx) error{fill("a", 50, 4096-16-16-11), fill("b", 50, 1024-16-16-11)}},
		{"large leaf", []func(*bolt.Tx) error{fill("a", 4, 5<<20), fill("b", 100, 10)}},
		{"large leaf amid small", []func(*bolt.Tx) error{fill("a", 200, 100), func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("a")).Put([]byte("key-0000100"), make([]byte, 9<<20))
		}}},
		{"fragmented", []func(*bolt.Tx) error{fill("a", 4000, 60), drop("a", 4000, 3), fill("b", 3000, 50), drop("a", 4000, 2), fill("a", 3000, 90)}},
		{"emptied", []func(*bolt.Tx) error{fill("a", 4000, 60), drop("a", 4000, 1)}},
		{"nested", []func(*bolt.Tx) error{nested, fill("a", 500, 100)}},
		{"buckets in a large leaf", []func(*bolt.Tx) error{largeAndNested}},
		{"long keys", []func(*bolt.Tx) error{func(tx *bolt.Tx) error {
			b, err := tx.CreateBucket([]byte("a"))
			for i := range 60 {
				err = errors.Join(err, b.Put(append(make([]byte, bolt.MaxKeySize-1), byte(i)), []byte{1}))
			}
			return err
		}}},
	}
	for _, s := range shapes {
		pageSizes := []int{1024, 4096, 16 << 10, 64 << 10}
		for _, pageSize := range pageSizes[:short.Or(len(pageSizes), 1)] {
			for _, freelist := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%d/freelist=%v", s.name, pageSize, freelist), func(t *testing.T) {
					b := build(t, pageSize, freelist, s.txs...)
					got, err := scanBytes(b)
					require.NoError(t, err)
					require.Equal(t, reference(t, b), got)
				})
			}
		}
	}
}

// Used and free pages are those that bbolt counts.
func TestUsage(t *testing.T) {
	b := build(t, 4096, true, fill("a", 4000, 60), drop("a", 4000, 2), fill("b", 500, 9000), drop("b", 500, 3))
	_, usage, err := scan(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)

	db, err := bolt.Open(writeFile(t, b), 0o600, &bolt.Options{ReadOnly: true, PreLoadFreelist: true})
	require.NoError(t, err)
	free := 0
	for id := range usage.Free() {
		free++
		require.False(t, usage.Contains(id))
	}
	require.Equal(t, db.Stats().FreePageN, free)
	require.NotZero(t, free)
	require.NoError(t, db.Close())
}

// A trailer, or the unused rest of a data file, does not matter.
func TestOpenIgnoresTheRest(t *testing.T) {
	b := build(t, 4096, false, fill("a", 100, 100))
	want := reference(t, b)
	for _, rest := range []int{1, 32, 4096, 100_000} {
		got, err := scanBytes(append(bytes.Clone(b), make([]byte, rest)...))
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func TestSizes(t *testing.T) {
	b := build(t, 16<<10, false, fill("a", 100, 100))
	db, err := boltfile.Open(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	require.Equal(t, int64(16<<10), db.PageSize())
	require.Equal(t, int64(len(b)), db.Size())
	require.Equal(t, boltfile.Pgid(len(b)/(16<<10)), db.HighWater())
}

// Every byte that is read is counted: none of the used pages is left out, and
// few are read twice.
func TestReadIsCounted(t *testing.T) {
	manySmall := newForge(6000)
	manySmall.bucket(2, 3)
	manySmall.elements(3, 60_000, 0, nil, 60)
	for _, b := range [][]byte{
		build(t, 4096, false, fill("a", 5000, 300)),
		build(t, 4096, false, fill("a", 3, 5<<20)),
		manySmall.b,
	} {
		db, err := boltfile.Open(bytes.NewReader(b), int64(len(b)))
		require.NoError(t, err)
		var read int64
		usage, _, err := db.Scan(context.Background(), boltfile.Options{Read: func(n int64) { read += n }})
		require.NoError(t, err)
		used := db.Size()
		for range usage.Free() {
			used -= db.PageSize()
		}
		require.GreaterOrEqual(t, read, used-4*db.PageSize())
		require.Less(t, read, db.Size()+db.Size()/10)
	}
}

// countingReader counts the reads.
type countingReader struct {
	io.ReaderAt
	reads int
}

func (r *countingReader) ReadAt(p []byte, off int64) (int, error) {
	r.reads++
	return r.ReaderAt.ReadAt(p, off)
}

// Pages that follow one another are read together.
func TestNeighboursAreReadTogether(t *testing.T) {
	b := build(t, 4096, false, fill("a", 20_000, 300))
	r := &countingReader{ReaderAt: bytes.NewReader(b)}
	_, _, err := scan(&lockedReader{r: r}, int64(len(b)))
	require.NoError(t, err)
	require.Less(t, r.reads, len(b)/4096/4)
}
