package systemtest_test

// Status and Verify of databases that bbolt would not write: pages put together
// by hand, sizes that are claimed, keys of many megabytes. In every run.

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// handmade is a database put together page by page: bbolt would not write it.
type handmade struct{ pages []byte }

// entry is an element of a page. A branch page has child in place of value.
type entry struct {
	key, value []byte
	child      uint64
	bucket     bool
}

const handmadePage = 4096

// next is the number that the next page gets.
func (h *handmade) next() uint64 { return 2 + uint64(len(h.pages)/handmadePage) }

func (h *handmade) leaf(entries ...entry) uint64   { return h.page(2, entries) }
func (h *handmade) branch(entries ...entry) uint64 { return h.page(1, entries) }

func (h *handmade) page(flags uint16, entries []entry) uint64 {
	id, at := h.next(), 16+16*len(entries)
	size := at
	for _, e := range entries {
		size += len(e.key) + len(e.value)
	}
	overflow := (size - 1) / handmadePage
	b := make([]byte, (overflow+1)*handmadePage)
	o := binary.NativeEndian
	o.PutUint64(b, id)
	o.PutUint16(b[8:], flags)
	o.PutUint16(b[10:], uint16(len(entries)))
	o.PutUint32(b[12:], uint32(overflow))
	for i, e := range entries {
		element, pos := b[16+16*i:], uint32(at-16-16*i)
		if flags == 1 {
			o.PutUint32(element, pos)
			o.PutUint32(element[4:], uint32(len(e.key)))
			o.PutUint64(element[8:], e.child)
		} else {
			if e.bucket {
				binary.NativeEndian.PutUint32(element, 1)
			}
			o.PutUint32(element[4:], pos)
			o.PutUint32(element[8:], uint32(len(e.key)))
			o.PutUint32(element[12:], uint32(len(e.value)))
		}
		at += copy(b[at:], e.key)
		at += copy(b[at:], e.value)
	}
	h.pages = append(h.pages, b...)
	return id
}

// bucket is an element for a bucket with that root page.
func bucket(name string, root uint64) entry {
	value := make([]byte, 16)
	binary.NativeEndian.PutUint64(value, root)
	return entry{key: []byte(name), value: value, bucket: true}
}

// write writes the database with a trailer, its pages up to highWater.
func (h *handmade) write(tb testing.TB, root, highWater uint64) string {
	tb.Helper()
	whole := snaptest.NewDB().Put("a", "b").PageSize(handmadePage).Bytes(tb, false)
	db := append(whole[:2*handmadePage:2*handmadePage], h.pages...)
	path := filepath.Join(tb.TempDir(), "db")
	require.NoError(tb, os.WriteFile(path, append(db, make([]byte, 32)...), 0o600))
	snaptest.SetMetas(tb, path, func(m *snaptest.Meta) { m.Root, m.HighWater, m.Freelist = root, highWater, math.MaxUint64 })
	snaptest.FixTrailer(tb, path)
	return path
}

// keyValue is a record with a value of size bytes.
func keyValue(key string, revision, size int) []byte {
	b := append([]byte{0x0a, byte(len(key))}, key...)
	b = binary.AppendUvarint(append(b, 0x18), uint64(revision))
	b = binary.AppendUvarint(append(b, 0x2a), uint64(size))
	return append(b, make([]byte, size)...)
}

const largerThanHeld = 5 << 20

// plentyFree is a disk with a tebibyte of free space.
type plentyFree struct{ durable.FS }

func (plentyFree) FreeSpace(string) (int64, error) { return 1 << 40, nil }

// A file can claim any size and take no room on the disk.
func TestSparseFile(t *testing.T) {
	for _, size := range []int64{1 << 43, math.MaxInt64 &^ (handmadePage - 1)} {
		h := &handmade{}
		root := h.leaf()
		path := h.write(t, root, uint64(size/handmadePage))
		if err := os.Truncate(path, size); err != nil {
			t.Logf("no sparse file of %d bytes here: %v", size, err)
			continue
		}
		_, err := snapshot.New().Status(path)
		require.ErrorIs(t, err, snapshot.ErrCorrupt)
		require.ErrorContains(t, err, "high-water mark")
		cfg := apitest.Config(path, filepath.Join(t.TempDir(), "data"))
		cfg.SkipHashCheck = true
		require.ErrorIs(t, apitest.OnFS(plentyFree{durable.OS}, nil).Restore(cfg), syscall.ENOSPC)
	}
}

// Nothing but records belongs into the key space, on a page of any size.
func TestBucketInKeySpace(t *testing.T) {
	for _, size := range []int{10, largerThanHeld} {
		h := &handmade{}
		inline := make([]byte, 32)
		binary.NativeEndian.PutUint16(inline[16+8:], 2)
		keys := h.leaf(
			entry{key: []byte(snaptest.RevisionKey(1, 0, "")), value: keyValue("a", 1, size)},
			entry{key: []byte(snaptest.RevisionKey(2, 0, "")), value: inline, bucket: true},
		)
		path := h.write(t, h.leaf(bucket("key", keys)), h.next())
		_, err := snapshot.New().Status(path)
		require.ErrorIs(t, err, snapshot.ErrCorrupt)
		require.ErrorContains(t, err, "a bucket where a record should be")
	}
}

// The storage version is found on a page of any size.
func TestVersionOnLargePage(t *testing.T) {
	for _, size := range []int{10, largerThanHeld} {
		h := &handmade{}
		meta := h.leaf(
			entry{key: []byte("a"), value: make([]byte, size)},
			entry{key: []byte("storageVersion"), value: []byte("3.6.0")},
		)
		st, err := snapshot.New().Status(h.write(t, h.leaf(bucket("meta", meta)), h.next()))
		require.NoError(t, err)
		require.Equal(t, "3.6.0", st.Version)
	}
}

// A page too large to be held can have thousands of small records. Each costs
// little, and the answer is that for small pages.
func TestManyRecordsOnLargePage(t *testing.T) {
	const records = 65_000
	var entries []entry
	for i := range records {
		entries = append(entries, entry{key: []byte(snaptest.RevisionKey(i+1, 0, "")), value: keyValue(fmt.Sprintf("key-%05d", i), i+1, 40)})
	}
	h := &handmade{}
	path := h.write(t, h.leaf(bucket("key", h.leaf(entries...)), bucket("meta", h.leaf())), h.next())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	st, err := snapshot.New().Verify(t.Context(), path)
	runtime.ReadMemStats(&after)
	require.NoError(t, err)
	require.Equal(t, records, st.TotalKey)
	require.EqualValues(t, records, st.Revision)
	perRecord := (after.TotalAlloc - before.TotalAlloc) / records
	// A quarter of what is pooled is allocated anew under the race detector.
	require.Less(t, perRecord, uint64(16<<10), "bytes allocated")
}

// Keys of branch pages are kept only as far as an etcd could need them.
func TestLargeBranchKeys(t *testing.T) {
	short.Skip(t, "writes 70 MB of keys")
	h := &handmade{}
	var top []entry
	below := h.branch() // its content is not looked at any more
	for a := range 70 {
		middle := []entry{{key: []byte{byte(a + 1)}, child: below}}
		for b := range 31 {
			key := make([]byte, 32<<10)
			key[0], key[1] = byte(a+1), byte(b+1)
			middle = append(middle, entry{key: key, child: below})
		}
		top = append(top, entry{key: middle[0].key, child: h.branch(middle...)})
	}
	path := h.write(t, h.leaf(bucket("x", h.branch(top...))), h.next())
	_, err := snapshot.New().Status(path)
	require.ErrorIs(t, err, snapshot.ErrCorrupt)
	require.ErrorContains(t, err, "bytes of branch keys")
}

// A level has no more pages than the file.
func TestBranchOfOnePage(t *testing.T) {
	h := &handmade{}
	below := h.branch() // its content is not looked at any more
	var same []entry
	for i := range 100 {
		same = append(same, entry{key: fmt.Appendf(nil, "a%03d", i), child: below})
	}
	path := h.write(t, h.leaf(bucket("x", h.branch(same...))), h.next())
	_, err := snapshot.New().Status(path)
	require.ErrorIs(t, err, snapshot.ErrCorrupt)
	require.ErrorContains(t, err, "on the level below")
}

// An error in an inline bucket names the page that it lies in.
func TestInlineBucketIsNamed(t *testing.T) {
	path := snaptest.NewDB().Raw("key", "short", "x").Write(t, filepath.Join(t.TempDir(), "db"), true)
	_, err := snapshot.New().Status(path)
	require.ErrorIs(t, err, snapshot.ErrCorrupt)
	require.Regexp(t, `page [1-9]\d*, element 0`, err.Error())
}
