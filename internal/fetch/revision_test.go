package fetch_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/fetch"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// SaveFile returns what SaveTo does, and the revision that Status finds.
func TestSaveFileSaysWhatItSaved(t *testing.T) {
	for name, db := range map[string]*snaptest.DB{
		"history":         snaptest.History(t),
		"several levels":  snaptest.NewDB().PageSize(1024).Large(5000, 100),
		"small and alone": snaptest.NewDB().Put("a", "b"),
		"last a deletion": snaptest.NewDB().Put("a", "b").Delete("a"),
		"last a large":    snaptest.NewDB().Put("a", "b").Put("c", string(make([]byte, 5<<20))),
		"bumped":          snaptest.NewDB().Put("a", "b").Bump(1 << 40),
		"no key":          snaptest.NewDB(),
		"no key space":    snaptest.NewDB().DropBucket("key"),
	} {
		t.Run(name, func(t *testing.T) {
			content := db.Bytes(t, true)
			s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(content[:len(content)-32]) })
			path := filepath.Join(t.TempDir(), "db")
			saved, err := snapshot.New().SaveFile(t.Context(), s.ClientConfig(), path)
			require.NoError(t, err)
			requireContentOf(t, path, content)
			status, err := snapshot.New().Status(path)
			require.NoError(t, err)
			require.Equal(t, status.Revision, saved.Revision)
			require.Positive(t, saved.Took)

			var w bytes.Buffer
			streamed, err := snapshot.New().SaveTo(t.Context(), s.ClientConfig(), &w)
			require.NoError(t, err)
			require.Zero(t, streamed.Revision)
			streamed.Revision, streamed.Took = saved.Revision, saved.Took
			require.Equal(t, streamed, saved)
		})
	}
}

func requireContentOf(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "not what was sent")
}

// Whatever the server has, when its checksum matches, is saved: without a revision
// where none can be read.
func TestSaveFileOfDamagedDatabase(t *testing.T) {
	damaged := func(edit func(path string)) []byte {
		path := snaptest.NewDB().PageSize(1024).Large(2000, 100).Write(t, filepath.Join(t.TempDir(), "db"), false)
		edit(path)
		db, err := os.ReadFile(path)
		require.NoError(t, err)
		return db
	}
	for name, db := range map[string][]byte{
		"no database":      snaptest.Opaque(64 << 10),
		"one sector":       snaptest.Opaque(512),
		"a key too long":   snaptest.NewDB().Put("a", "b").Raw("key", snaptest.RevisionKey(9, 0, "t")+"?", "").Bytes(t, false),
		"negative":         snaptest.NewDB().Raw("key", snaptest.RevisionKey(-9, 0, ""), "").Bytes(t, false),
		"no root":          damaged(func(path string) { snaptest.SetMetas(t, path, func(m *snaptest.Meta) { m.Root = 1 << 40 }) }),
		"too short":        damaged(func(path string) { snaptest.Truncate(t, path, 8192) }),
		"wrong page":       damaged(func(path string) { snaptest.CopyPage(t, path, 0, snaptest.BucketRoot(t, path, "key")) }),
		"other byte order": otherByteOrder(t),
	} {
		t.Run(name, func(t *testing.T) {
			s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(db) })
			path := filepath.Join(t.TempDir(), "db")
			saved, err := snapshot.New().SaveFile(t.Context(), s.ClientConfig(), path)
			require.NoError(t, err)
			require.Zero(t, saved.Revision)
			requireContentOf(t, path, snaptest.WithTrailer(db))
		})
	}
}

// otherByteOrder is a database whose meta pages a machine of the other order wrote.
func otherByteOrder(t *testing.T) []byte {
	db := snaptest.NewDB().Put("a", "b").Bytes(t, false)
	for at := range 2 {
		meta := db[at*4096 : at*4096+80]
		for _, field := range []struct{ at, size int }{{0, 8}, {8, 2}, {16, 4}, {20, 4}, {24, 4}, {32, 8}, {48, 8}, {56, 8}, {64, 8}} {
			slices.Reverse(meta[field.at : field.at+field.size])
		}
		sum := fnv.New64a()
		_, _ = sum.Write(meta[16:72])
		binary.NativeEndian.PutUint64(meta[72:], sum.Sum64())
		slices.Reverse(meta[72:80])
	}
	return db
}

// The right edge of a database that a server made up can be as long as the file.
func TestSaveReadsABoundedPartForTheRevision(t *testing.T) {
	const pageSize, pages = 1024, 20_000
	path := snaptest.NewDB().PageSize(pageSize).Large(200, 100).Write(t, filepath.Join(t.TempDir(), "db"), false)
	snaptest.Edit(t, path, func(data []byte) []byte {
		id, first := snaptest.BucketRoot(t, path, "key"), uint64(len(data)/pageSize)
		data = append(data, make([]byte, pages*pageSize)...)
		for i := range uint64(pages - 1) {
			putBranch(data[id*pageSize:], id, i, first+i, first+i+1)
			id = first + i + 1
		}
		return data
	})
	snaptest.SetMetas(t, path, func(m *snaptest.Meta) { m.HighWater += pages })
	db, err := os.ReadFile(path)
	require.NoError(t, err)
	r := &snaptest.CountingReaderAt{ReaderAt: bytes.NewReader(db)}
	revision, err := fetch.LastRevision(t.Context(), r, int64(len(db)))
	require.NoError(t, err)
	require.Zero(t, revision)
	require.LessOrEqual(t, r.N.Load(), int64(fetch.MaxRevisionReads))
	require.Greater(t, r.N.Load(), int64(fetch.MaxRevisionReads-64<<10), "ended for another reason")
}

// putBranch writes a branch page of two children, with the numbers at and at+1 as
// their keys.
func putBranch(page []byte, id, at, left, right uint64) {
	order := binary.NativeEndian
	clear(page[:1024])
	order.PutUint64(page, id)
	order.PutUint16(page[8:], snaptest.BranchFlag)
	order.PutUint16(page[10:], 2)
	for i, child := range []uint64{left, right} {
		element := page[16+16*i:]
		order.PutUint32(element, uint32(32-16*i+8*i))
		order.PutUint32(element[4:], 8)
		order.PutUint64(element[8:], child)
		binary.BigEndian.PutUint64(page[48+8*i:], at+uint64(i))
	}
}

// A file that cannot be read back is not published, also where a read that failed
// could be taken for a database that is damaged.
func TestSaveWhoseFileCannotBeReadBack(t *testing.T) {
	for name, tc := range map[string]struct {
		db       []byte
		revision int64
		reads    int // at least
	}{
		"a database":       {snaptest.NewDB().Large(2000, 100).Bytes(t, false), 2001, 4},
		"no database":      {snaptest.Opaque(64 << 10), 0, 4},
		"other byte order": {otherByteOrder(t), 0, 3},
	} {
		t.Run(name, func(t *testing.T) {
			s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(tc.db) })
			for fail := 0; ; fail++ {
				dir := t.TempDir()
				path := filepath.Join(dir, "db")
				require.NoError(t, os.WriteFile(path, []byte(apitest.Before), 0o600))
				hook := &failRead{fail: fail, seen: func() { requireContentOf(t, path, []byte(apitest.Before)) }}
				fsys := durabletest.Wrap(durable.OS, hook)
				saved, err := apitest.OnFS(fsys, nil).SaveFile(t.Context(), s.ClientConfig(), path)
				require.Zero(t, fsys.CloseAll(), "files left open")
				if hook.reads <= fail {
					require.NoError(t, err)
					require.Equal(t, tc.revision, saved.Revision)
					require.GreaterOrEqual(t, hook.reads, tc.reads)
					return
				}
				require.ErrorIs(t, err, syscall.EIO)
				require.Zero(t, saved)
				requireContentOf(t, path, []byte(apitest.Before))
				require.Equal(t, []string{"db"}, snaptest.TreeList(t, dir))
			}
		})
	}
}

// failRead fails one read of a file, counted from 0.
type failRead struct {
	fail, reads int
	seen        func()
}

func (f *failRead) Before(op durabletest.Op) error {
	if op.Kind != "read" {
		return nil
	}
	f.seen()
	if f.reads++; f.reads-1 == f.fail {
		return syscall.EIO
	}
	return nil
}

func (*failRead) After(durabletest.Op, error) {}

// A context that ends while the revision is read publishes nothing.
func TestSaveCancelledWhileTheRevisionIsRead(t *testing.T) {
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
		return c.SendSnapshot(snaptest.NewDB().Large(2000, 100).Bytes(t, false))
	})
	dir := t.TempDir()
	ctx, cancel := context.WithCancelCause(t.Context())
	fsys := durabletest.Wrap(durable.OS, &failRead{fail: -1, seen: func() { cancel(apitest.ErrCaller) }})
	_, err := apitest.OnFS(fsys, nil).SaveFile(ctx, s.ClientConfig(), filepath.Join(dir, "db"))
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, apitest.ErrCaller)
	require.Empty(t, snaptest.TreeList(t, dir))
}
