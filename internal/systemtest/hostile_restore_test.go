package systemtest_test

// Restore of databases that bbolt would not write, and of readers that lie. In
// every run.

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// requireAllRefuse has every operation refuse a file as corrupt.
func requireAllRefuse(t *testing.T, path, why string, change func(*snapshot.RestoreConfig)) {
	t.Helper()
	dir := t.TempDir()
	cfg := apitest.Config(path, filepath.Join(dir, "data"))
	change(&cfg)
	_, status := snapshot.New().Status(path)
	_, verify := snapshot.New().Verify(t.Context(), path)
	for _, err := range []error{status, verify, snapshot.New().Restore(cfg)} {
		require.ErrorIs(t, err, snapshot.ErrCorrupt)
		require.ErrorContains(t, err, why)
	}
	require.Empty(t, snaptest.TreeList(t, dir))
}

// Trees in which bbolt finds every record, and does not find its way when it
// writes to them: it panics, or makes a database that is damaged.
func TestTreesThatCannotBeWrittenTo(t *testing.T) {
	consistentIndex := entry{key: []byte("consistent_index"), value: make([]byte, 8)}
	record := func(revision int) entry {
		return entry{key: []byte(snaptest.RevisionKey(revision, 0, "")), value: keyValue("a", revision, 10)}
	}
	for name, tt := range map[string]struct {
		make func(h *handmade) (root uint64)
		why  string
	}{
		"a branch page with one child": {func(h *handmade) uint64 {
			members := h.leaf(entry{key: []byte("old"), value: []byte("x")})
			top := h.leaf(bucket("members", members), bucket("members_removed", h.leaf()), bucket("meta", h.leaf(consistentIndex)))
			return h.branch(entry{key: []byte("members"), child: top})
		}, "branch page of 1 elements"},
		"buckets behind a lower key": {func(h *handmade) uint64 {
			members := h.leaf(entry{key: []byte("old"), value: []byte("x")})
			first := h.leaf(bucket("auth", h.leaf()), bucket("key", h.leaf(record(2))))
			second := h.leaf(bucket("members", members), bucket("members_removed", h.leaf()), bucket("meta", h.leaf(consistentIndex)))
			return h.branch(entry{key: []byte("auth"), child: first}, entry{key: []byte("m"), child: second})
		}, "its key in the parent page"},
		"records behind a lower key": {func(h *handmade) uint64 {
			first, second := h.leaf(record(2), record(3)), h.leaf(record(6), record(7))
			keys := h.branch(entry{key: []byte(snaptest.RevisionKey(2, 0, "")), child: first}, entry{key: []byte(snaptest.RevisionKey(5, 0, "")), child: second})
			return h.leaf(bucket("key", keys), bucket("meta", h.leaf(consistentIndex)))
		}, "its key in the parent page"},
		"no records behind a key": {func(h *handmade) uint64 {
			keys := h.branch(entry{key: []byte(snaptest.RevisionKey(2, 0, "")), child: h.leaf(record(2))}, entry{key: []byte(snaptest.RevisionKey(5, 0, "")), child: h.leaf()})
			return h.leaf(bucket("key", keys), bucket("meta", h.leaf(consistentIndex)))
		}, "leaf page without elements"},
	} {
		t.Run(name, func(t *testing.T) {
			h := &handmade{}
			root := tt.make(h)
			requireAllRefuse(t, h.write(t, root, h.next()), tt.why, func(cfg *snapshot.RestoreConfig) {
				cfg.RevisionBump, cfg.MarkCompacted = 100, true
			})
		})
	}
}

// Without a next transaction id bbolt would begin again at 0, and the database
// as it was before the edit would count.
func TestRestoreOfTheLastTransaction(t *testing.T) {
	for _, txid := range []uint64{math.MaxUint64, math.MaxUint64 - 1} {
		for _, freelist := range []bool{false, true} {
			dir := t.TempDir()
			path := snaptest.History(t).WithFreelist(freelist).Write(t, filepath.Join(dir, "db"), true)
			snaptest.SetMetas(t, path, func(m *snaptest.Meta) { m.TxID = txid })
			snaptest.FixTrailer(t, path)
			_, err := snapshot.New().Status(path)
			require.NoError(t, err)
			err = snapshot.New().Restore(apitest.Config(path, filepath.Join(dir, "data")))
			require.ErrorIs(t, err, snapshot.ErrCorrupt)
			require.ErrorContains(t, err, "is the last")
			require.Equal(t, []string{"db"}, snaptest.TreeList(t, dir))
		}
	}
}

// What has to be held in memory to be written anew stays small.
func TestRestoreOfHugeBuckets(t *testing.T) {
	for name, db := range map[string]*snaptest.DB{
		"one record":   snaptest.NewDB().Put("a", "b").Raw("meta", "note", strings.Repeat("x", 17<<20)),
		"many records": many(snaptest.NewDB().Put("a", "b"), "members_removed", 300),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := db.Write(t, filepath.Join(dir, "db"), true)
			_, err := snapshot.New().Verify(t.Context(), path)
			require.NoError(t, err)
			err = snapshot.New().Restore(apitest.Config(path, filepath.Join(dir, "data")))
			require.ErrorIs(t, err, snapshot.ErrCorrupt)
			require.ErrorContains(t, err, "more than 16 MiB")
			require.Equal(t, []string{"db"}, snaptest.TreeList(t, dir))
		})
	}
	path := many(snaptest.NewDB().Put("a", "b"), "members_removed", 200).Write(t, filepath.Join(t.TempDir(), "db"), true)
	require.NoError(t, snapshot.New().Restore(apitest.Config(path, filepath.Join(t.TempDir(), "data"))))
}

// A bump puts a record behind the last one, however large that is, its page and
// its neighbours are. bbolt does not split a page of up to four records.
func TestRestoreBumpBehindLargeRecords(t *testing.T) {
	for name, values := range map[string][]int{
		"one of 25 MiB":           {1, 25 << 20},
		"two of 13 MiB":           {13 << 20, 13 << 20},
		"eight of 7 MiB":          {7 << 20, 7 << 20, 7 << 20, 7 << 20, 7 << 20, 7 << 20, 7 << 20, 7 << 20},
		"small ones behind large": {25 << 20, 25 << 20, 1, 1, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if name != "one of 25 MiB" {
				short.Skip(t, "restores many megabytes")
			}
			db := snaptest.NewDB()
			for i, size := range values {
				db.Put(string(rune('a'+i)), strings.Repeat("x", size))
			}
			dir := t.TempDir()
			cfg := apitest.Config(db.Write(t, filepath.Join(dir, "db"), true), filepath.Join(dir, "data"))
			cfg.RevisionBump, cfg.MarkCompacted = 100, true
			require.NoError(t, snapshot.New().Restore(cfg))
			st, err := snapshot.New().Verify(t.Context(), snaptest.AsSnapshot(t, filepath.Join(cfg.OutputDataDir, "member", "snap", "db")))
			require.NoError(t, err)
			require.Equal(t, db.Revision()+100, st.Revision)
			require.Equal(t, len(values)+1, st.TotalKey)
		})
	}
}

// many adds n records of 64 KiB.
func many(db *snaptest.DB, bucket string, n int) *snaptest.DB {
	for i := range n {
		db.Raw(bucket, string(rune('a'+i)), strings.Repeat("x", 64<<10))
	}
	return db
}

// A meta page that was lost or torn leaves the database to the other one, and
// the restored database has two.
func TestRestoreWithOneMetaPage(t *testing.T) {
	whole := snaptest.History(t).Bytes(t, false)
	for page := range 2 {
		for _, junk := range []byte{0, 0xff} {
			dir := t.TempDir()
			path := snaptest.History(t).Write(t, filepath.Join(dir, "db"), true)
			snaptest.Overwrite(t, path, int64(page)*4096, bytes.Repeat([]byte{junk}, 4096))
			snaptest.FixTrailer(t, path)
			st, err := snapshot.New().Verify(t.Context(), path)
			require.NoError(t, err)
			require.EqualValues(t, len(whole), st.TotalSize)
			cfg := apitest.Config(path, filepath.Join(dir, "data"))
			require.NoError(t, snapshot.New().Restore(cfg))
			db := filepath.Join(cfg.OutputDataDir, "member", "snap", "db")
			content, err := os.ReadFile(db)
			require.NoError(t, err)
			for n := range 2 {
				require.Equal(t, snaptest.ParseMeta(whole, n).Magic, snaptest.ParseMeta(content, n).Magic)
			}
			_, err = snapshot.New().Status(db)
			require.NoError(t, err)
		}
	}
}

// lyingReader says that it has read another number of bytes.
type lyingReader struct{ by int }

func (r lyingReader) Read(p []byte) (int, error) {
	if r.by < 0 {
		return r.by, nil
	}
	return len(p) + r.by, nil
}

func TestRestoreFromLyingReader(t *testing.T) {
	for _, by := range []int{-1, 1} {
		dir := t.TempDir()
		err := snapshot.New().RestoreFrom(context.Background(), lyingReader{by}, apitest.Config("", filepath.Join(dir, "data")))
		require.ErrorContains(t, err, "a reader returned")
		require.Empty(t, snaptest.TreeList(t, dir))
	}
}
