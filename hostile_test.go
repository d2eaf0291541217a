package snapshot_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/snaptest"
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

// revisionKey is the key of a record; mark is "t" for a tombstone.
func revisionKey(main, sub int, mark string) string {
	b := append(binary.BigEndian.AppendUint64(nil, uint64(main)), '_')
	return string(binary.BigEndian.AppendUint64(b, uint64(sub))) + mark
}

// keyValue is a record with a value of size bytes.
func keyValue(key string, revision, size int) []byte {
	b := append([]byte{0x0a, byte(len(key))}, key...)
	b = binary.AppendUvarint(append(b, 0x18), uint64(revision))
	b = binary.AppendUvarint(append(b, 0x2a), uint64(size))
	return append(b, make([]byte, size)...)
}

const largerThanHeld = 5 << 20

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
		cfg := config(path, filepath.Join(t.TempDir(), "data"))
		cfg.SkipHashCheck = true
		require.ErrorIs(t, snapshot.New(snapshot.WithFS(spaceIn{FS: durable.OS, free: 1 << 40})).Restore(cfg), syscall.ENOSPC)
	}
}

// Nothing but records belongs into the key space, on a page of any size.
func TestBucketInKeySpace(t *testing.T) {
	for _, size := range []int{10, largerThanHeld} {
		h := &handmade{}
		inline := make([]byte, 32)
		binary.NativeEndian.PutUint16(inline[16+8:], 2)
		keys := h.leaf(
			entry{key: []byte(revisionKey(1, 0, "")), value: keyValue("a", 1, size)},
			entry{key: []byte(revisionKey(2, 0, "")), value: inline, bucket: true},
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
		entries = append(entries, entry{key: []byte(revisionKey(i+1, 0, "")), value: keyValue(fmt.Sprintf("key-%05d", i), i+1, 40)})
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

// slowDisk is cancelled while it writes back for the first time.
type slowDisk struct {
	durable.FS
	cancel context.CancelFunc
	calls  int
}

func (d *slowDisk) StartWriteback(durable.File, int64, int64) error {
	d.calls++
	d.cancel()
	return nil
}

// A disk whose queue is full does not keep a cancelled Restore for longer than
// one request.
func TestRestoreCancelledWhileTheDiskIsSlow(t *testing.T) {
	path := snaptest.NewDB().Large(40_000, 1000).Write(t, filepath.Join(t.TempDir(), "db"), true)
	snaptest.NoLeaks(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	disk := &slowDisk{FS: durable.OS, cancel: cancel}
	dir := t.TempDir()
	err := snapshot.New(snapshot.WithFS(disk)).RestoreContext(ctx, config(path, filepath.Join(dir, "data")))
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 1, disk.calls)
	require.Empty(t, snaptest.TreeList(t, dir))
}

// brokenDisk fails to write back, and copies nothing, which is quick.
type brokenDisk struct {
	durable.FS
	failed chan struct{}
	copies int
}

func (d *brokenDisk) StartWriteback(durable.File, int64, int64) error {
	defer close(d.failed)
	return syscall.EIO
}

func (d *brokenDisk) FreeSpace(string) (int64, error) { return math.MaxInt64, nil }

func (d *brokenDisk) CopyRange(_ durable.File, _ int64, _ durable.File, _, n int64) (int64, error) {
	if d.copies++; d.copies > 1 {
		<-d.failed
		time.Sleep(100 * time.Microsecond) // all copies would take 13 s: long enough for the error to get through
	}
	return n, nil
}

// A disk that fails ends a Restore while there is still a lot to copy.
func TestRestoreEndsWhenTheDiskFails(t *testing.T) {
	const size = 1 << 40
	path := write(t)
	if err := os.Truncate(path, size); err != nil {
		t.Skipf("no sparse file of 1 TiB here: %v", err)
	}
	snaptest.NoLeaks(t)
	disk := &brokenDisk{FS: durable.OS, failed: make(chan struct{})}
	dir := t.TempDir()
	cfg := config(path, filepath.Join(dir, "data"))
	cfg.SkipHashCheck = true
	require.ErrorIs(t, snapshot.New(snapshot.WithFS(disk)).Restore(cfg), syscall.EIO)
	require.Less(t, disk.copies, size/(8<<20))
	require.Empty(t, snaptest.TreeList(t, dir))
}

// lostConnection ends with an error that wraps io.EOF.
type lostConnection struct{ r io.Reader }

func (l lostConnection) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if err == io.EOF {
		err = fmt.Errorf("connection lost: %w", err)
	}
	return n, err
}

func TestRestoreFromLostConnection(t *testing.T) {
	path := snaptest.NewDB().Put("a", "b").Write(t, filepath.Join(t.TempDir(), "db"), false)
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	dir := t.TempDir()
	cfg := config("", filepath.Join(dir, "data"))
	cfg.SkipHashCheck = true
	err = snapshot.New().RestoreFrom(t.Context(), lostConnection{f}, cfg)
	require.ErrorContains(t, err, "connection lost")
	require.ErrorIs(t, err, snapshot.ErrTruncated)
	require.Empty(t, snaptest.TreeList(t, dir))
}
