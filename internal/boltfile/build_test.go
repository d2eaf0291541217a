package boltfile_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"etcd.example/snapshot/internal/snaptest"
)

// build returns a database as bbolt streams it, written with the given page size.
func build(tb testing.TB, pageSize int, freelist bool, transactions ...func(*bolt.Tx) error) []byte {
	tb.Helper()
	db := buildDB(tb, pageSize, freelist, transactions)
	var b bytes.Buffer
	require.NoError(tb, db.View(func(tx *bolt.Tx) error {
		_, err := tx.WriteTo(&b)
		return err
	}))
	require.NoError(tb, db.Close())
	return b.Bytes()
}

// buildFile is build for a file as bbolt leaves it, where the two meta pages are
// those of different transactions.
func buildFile(tb testing.TB, pageSize int, freelist bool, transactions ...func(*bolt.Tx) error) []byte {
	tb.Helper()
	db := buildDB(tb, pageSize, freelist, transactions)
	path := db.Path()
	require.NoError(tb, db.Close())
	b, err := os.ReadFile(path)
	require.NoError(tb, err)
	return b
}

func buildDB(tb testing.TB, pageSize int, freelist bool, transactions []func(*bolt.Tx) error) *bolt.DB {
	tb.Helper()
	path := filepath.Join(snaptest.MemoryDir(tb), "db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: pageSize, NoSync: true, NoFreelistSync: !freelist})
	require.NoError(tb, err)
	for _, fn := range transactions {
		require.NoError(tb, db.Update(fn))
	}
	return db
}

// fill puts n records of the given value size into a bucket.
func fill(bucket string, n, valueSize int) func(*bolt.Tx) error {
	return func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(bucket))
		if err != nil {
			return err
		}
		for i := range n {
			value := bytes.Repeat([]byte{byte(i)}, valueSize)
			if err := b.Put(fmt.Appendf(nil, "key-%07d", i), value); err != nil {
				return err
			}
		}
		return nil
	}
}

// drop deletes every record of a bucket whose number is a multiple of step.
func drop(bucket string, n, step int) func(*bolt.Tx) error {
	return func(tx *bolt.Tx) error {
		for i := 0; i < n; i += step {
			if err := tx.Bucket([]byte(bucket)).Delete(fmt.Appendf(nil, "key-%07d", i)); err != nil {
				return err
			}
		}
		return nil
	}
}

// image gives names to the fields of a database in memory.
type image struct {
	b        []byte
	pageSize int
}

func newImage(b []byte) *image {
	return &image{b: bytes.Clone(b), pageSize: int(binary.NativeEndian.Uint32(b[24:]))}
}

func (m *image) page(id int) []byte      { return m.b[id*m.pageSize : (id+1)*m.pageSize] }
func (m *image) pages() int              { return len(m.b) / m.pageSize }
func (m *image) flags(id int) uint16     { return binary.NativeEndian.Uint16(m.page(id)[8:]) }
func (m *image) count(id int) int        { return int(binary.NativeEndian.Uint16(m.page(id)[10:])) }
func (m *image) field(id, at int) []byte { return m.page(id)[at:] }

func (m *image) set64(id, at int, v uint64) { binary.NativeEndian.PutUint64(m.field(id, at), v) }
func (m *image) set32(id, at int, v uint32) { binary.NativeEndian.PutUint32(m.field(id, at), v) }
func (m *image) set16(id, at int, v uint16) { binary.NativeEndian.PutUint16(m.field(id, at), v) }
func (m *image) get64(id, at int) uint64    { return binary.NativeEndian.Uint64(m.field(id, at)) }
func (m *image) get32(id, at int) uint32    { return binary.NativeEndian.Uint32(m.field(id, at)) }

// live is the meta page that counts: the one with the larger transaction id.
func (m *image) live() int {
	if m.get64(1, 64) > m.get64(0, 64) {
		return 1
	}
	return 0
}

// sum corrects the checksum of a meta page.
func (m *image) sum(id int) {
	h := fnv.New64a()
	_, _ = h.Write(m.page(id)[16 : 16+56])
	m.set64(id, 16+56, h.Sum64())
}

// find returns the pages reachable from the root that have the given type, in
// the order of the file.
func (m *image) find(flags uint16) []int {
	var found []int
	for id := 2; id < m.pages(); id++ {
		if m.flags(id) == flags && m.get64(id, 0) == uint64(id) && m.count(id) > 0 {
			found = append(found, id)
		}
	}
	return found
}

// Offsets of fields in a meta page, a page header, and element i of a table.
const (
	metaPageSize  = 16 + 8
	metaRoot      = 16 + 16
	metaFreelist  = 16 + 32
	metaHighWater = 16 + 40
	headID        = 0
	headFlags     = 8
	headCount     = 10
	headOverflow  = 12
	typeBranch    = 1
	typeLeaf      = 2
	typeMeta      = 4
)

func leafPos(i int) int    { return 16 + 16*i + 4 }
func leafKey(i int) int    { return 16 + 16*i + 8 }
func leafValue(i int) int  { return 16 + 16*i + 12 }
func leafFlags(i int) int  { return 16 + 16*i }
func branchPos(i int) int  { return 16 + 16*i }
func branchKey(i int) int  { return 16 + 16*i + 4 }
func branchPgid(i int) int { return 16 + 16*i + 8 }

// writeFile writes to a disk if there is one: some tests want the file cold.
func writeFile(tb testing.TB, b []byte) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "db")
	require.NoError(tb, os.WriteFile(path, b, 0o600))
	return path
}

// lockedReader lets several workers share a reader with state.
type lockedReader struct {
	mu sync.Mutex
	r  io.ReaderAt
}

func (l *lockedReader) ReadAt(p []byte, off int64) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.ReadAt(p, off)
}
