package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/trailer"
)

func TestStatusAgreesWithTheModel(t *testing.T) {
	m := snapshot.New()
	for name, build := range map[string]func() *snaptest.DB{
		"empty":              func() *snaptest.DB { return snaptest.NewDB() },
		"one key":            func() *snaptest.DB { return snaptest.NewDB().Put("a", "b") },
		"only a deleted key": func() *snaptest.DB { return snaptest.NewDB().Put("a", "b").Delete("a") },
		"came back":          func() *snaptest.DB { return snaptest.NewDB().Put("a", "b").Delete("a").Put("a", "c") },
		"history":            func() *snaptest.DB { return snaptest.History(t) },
		"compacted":          func() *snaptest.DB { return snaptest.History(t).Compact(2000) },
		"in mid-compaction":  func() *snaptest.DB { return snaptest.History(t).CompactPartially(2500, 700) },
		"bumped":             func() *snaptest.DB { return snaptest.History(t).Bump(1_000_000) },
		"fragmented":         func() *snaptest.DB { return snaptest.History(t).Fragment() },
		"16 KiB pages":       func() *snaptest.DB { return snaptest.History(t).PageSize(16 << 10) },
		"64 KiB pages":       func() *snaptest.DB { return snaptest.History(t).PageSize(64 << 10) },
		"synced freelist":    func() *snaptest.DB { return snaptest.History(t).Fragment().WithFreelist(true) },
		"record of many MiB": func() *snaptest.DB {
			return snaptest.History(t).Put("big", strings.Repeat("x", 9<<20)).Put("after", "1")
		},
		"key of many MiB": func() *snaptest.DB { return snaptest.NewDB().Put(strings.Repeat("k", 6<<20), "v").Put("b", "") },
		"large deleted, back": func() *snaptest.DB {
			k := strings.Repeat("k", 5<<20)
			return snaptest.NewDB().Put(k, "v").Delete(k).Put("other", "").Put(k, "w").Put(k+"2", "").Delete(k + "2")
		},
		"no key bucket": func() *snaptest.DB { return snaptest.NewDB().DropBucket("key") },
	} {
		t.Run(name, func(t *testing.T) {
			db := build()
			path := db.Write(t, filepath.Join(t.TempDir(), "snap.db"), true)
			st, err := m.Status(path)
			require.NoError(t, err)
			require.Equal(t, db.Revision(), st.Revision)
			require.Equal(t, db.LiveKeys(), st.TotalKey)
			info, err := os.Stat(path)
			require.NoError(t, err)
			require.Equal(t, info.Size()-32, st.TotalSize)
			require.NotZero(t, st.Hash)

			verified, err := m.Verify(context.Background(), path)
			require.NoError(t, err)
			require.Equal(t, st, verified)

			snaptest.Truncate(t, path, info.Size()-32)
			again, err := m.Status(path)
			require.NoError(t, err, "a db file without trailer")
			require.Equal(t, st, again)
			_, err = m.Verify(context.Background(), path)
			require.ErrorIs(t, err, snapshot.ErrNoTrailer)
		})
	}
}

// The hash is that of all names and entries in order, whatever shape they have in
// the file: of a bucket in a bucket only the name counts.
func TestStatusHash(t *testing.T) {
	inner := map[string]string{"k": "v"}
	for name, db := range map[string]*snaptest.DB{
		"history":         snaptest.History(t),
		"16 KiB pages":    snaptest.History(t).PageSize(16 << 10).Fragment(),
		"large":           snaptest.NewDB().Put("a", "1").Put(strings.Repeat("k", 300_000), strings.Repeat("v", 9<<20)).Put("b", "2"),
		"nested":          snaptest.NewDB().Raw("lease", "a", "1").NestedBucket(inner, "lease", "inner").Raw("lease", "z", "2"),
		"large in nested": snaptest.NewDB().Raw("lease", "a", strings.Repeat("v", 5<<20)).NestedBucket(inner, "lease", "inner"),
	} {
		path := db.Write(t, filepath.Join(t.TempDir(), "db"), true)
		st, err := snapshot.New().Status(path)
		require.NoError(t, err, name)
		require.Equal(t, bucketHash(t, path), st.Hash, name)
	}
}

// bucketHash is the hash as bbolt reads the database.
func bucketHash(tb testing.TB, path string) uint32 {
	tb.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	require.NoError(tb, err)
	defer func() { require.NoError(tb, db.Close()) }()
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	require.NoError(tb, db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			_, _ = h.Write(name)
			return b.ForEach(func(k, v []byte) error {
				_, _ = h.Write(k)
				_, err := h.Write(v)
				return err
			})
		})
	}))
	return h.Sum32()
}

func TestStatusVersion(t *testing.T) {
	for in, want := range map[string]string{"3.6.0": "3.6.0", "3.7.0": "3.7.0", "not a version": "", "": ""} {
		path := snaptest.NewDB().Raw("meta", "storageVersion", in).Write(t, filepath.Join(t.TempDir(), "db"), true)
		st, err := snapshot.New().Status(path)
		require.NoError(t, err)
		require.Equal(t, want, st.Version)
	}
}

func TestStatusBadInput(t *testing.T) {
	m := snapshot.New()
	dir := t.TempDir()
	valid := snaptest.SmallFile(t)
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, content, 0o600))
		return path
	}
	whole, err := os.ReadFile(valid)
	require.NoError(t, err)
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(valid, link))

	_, err = m.Status(link)
	require.NoError(t, err, "a symbolic link is followed")

	for name, tt := range map[string]struct {
		path string
		want []error
		text string
	}{
		"missing":   {filepath.Join(dir, "nothing"), []error{fs.ErrNotExist}, "nothing"},
		"directory": {dir, nil, "not a regular file but a directory"},
		"device":    {"/dev/null", nil, "not a regular file"},
		"empty":     {file("empty", nil), []error{snapshot.ErrCorrupt, snapshot.ErrTruncated}, "byte 0"},
		"one byte":  {file("one", []byte{1}), []error{snapshot.ErrCorrupt, snapshot.ErrTruncated}, "byte 1"},
		"text":      {file("text", []byte(strings.Repeat("not a database ", 1000))), []error{snapshot.ErrCorrupt}, `not a snapshot: it starts with "not a database not a`},
		"half":      {file("half", whole[:len(whole)/2]), []error{snapshot.ErrCorrupt, snapshot.ErrTruncated}, "want at least"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, call := range []func() (snapshot.Status, error){
				func() (snapshot.Status, error) { return m.Status(tt.path) },
				func() (snapshot.Status, error) { return m.Verify(context.Background(), tt.path) },
			} {
				st, err := call()
				require.Error(t, err)
				require.Zero(t, st)
				var e *snapshot.Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, tt.path, e.Path)
				if e.Op == "verify" && errors.Is(err, snapshot.ErrNoTrailer) {
					continue // what has no trailer is judged no further
				}
				for _, want := range tt.want {
					require.ErrorIs(t, err, want)
				}
				require.ErrorContains(t, err, tt.text)
			}
		})
	}
}

func TestStatusInUse(t *testing.T) {
	path := snaptest.SmallFile(t)
	db, err := bolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	_, err = snapshot.New().Status(path)
	require.ErrorIs(t, err, snapshot.ErrInUse)
	require.NotContains(t, err.Error(), "another process", "it is this one")
	require.NoError(t, db.Close())
	_, err = snapshot.New().Status(path)
	require.NoError(t, err)
}

// A running etcd's own database is refused at once.
func TestStatusOfARunningEtcd(t *testing.T) {
	e := snaptest.Start(t)
	_, err := snapshot.New().Status(filepath.Join(e.DataDir, "member", "snap", "db"))
	require.ErrorIs(t, err, snapshot.ErrInUse)
}

func TestStatusRefusesRecordsThatAreNone(t *testing.T) {
	for name, tt := range map[string]struct {
		db   *snaptest.DB
		want string
	}{
		"short revision":    {snaptest.NewDB().Raw("key", "short", "x"), "revision key 73686f7274: 5 bytes"},
		"separator":         {snaptest.NewDB().Raw("key", "12345678-12345678", "x"), "separator"},
		"negative":          {snaptest.NewDB().Raw("key", "\x802345678_12345678"[:17], "x"), "negative"},
		"no KeyValue":       {snaptest.NewDB().Raw("key", "\x00\x00\x00\x00\x00\x00\x00\x01_\x00\x00\x00\x00\x00\x00\x00\x00", "\xff"), "revision 1.0: malformed KeyValue"},
		"large no KeyValue": {snaptest.NewDB().Raw("key", "\x00\x00\x00\x00\x00\x00\x00\x01_\x00\x00\x00\x00\x00\x00\x00\x00", strings.Repeat("\xff", 5<<20)), "revision 1.0: malformed KeyValue"},
		"bucket":            {snaptest.NewDB().NestedBucket(nil, "key", "inner"), "a bucket where a record should be"},
	} {
		t.Run(name, func(t *testing.T) {
			path := tt.db.Write(t, filepath.Join(t.TempDir(), "db"), true)
			_, err := snapshot.New().Status(path)
			require.ErrorIs(t, err, snapshot.ErrCorrupt)
			require.ErrorContains(t, err, tt.want)
			_, err = snapshot.New().Verify(context.Background(), path)
			require.ErrorIs(t, err, snapshot.ErrCorrupt)
		})
	}
}

// failingAt is a file with a byte that cannot be read.
type failingAt struct {
	io.ReaderAt
	bad int64
	err error
}

func (f failingAt) ReadAt(p []byte, off int64) (int, error) {
	if f.bad < off || off+int64(len(p)) <= f.bad {
		return f.ReaderAt.ReadAt(p, off)
	}
	n, _ := f.ReaderAt.ReadAt(p[:f.bad-off], off)
	return n, f.err
}

// What could not be read has no wrong digest: the error is the disk's, or that
// the file ended.
func TestDigestOfWhatCannotBeRead(t *testing.T) {
	whole := bytes.NewReader(make([]byte, 3<<20+32))
	for _, bad := range []int64{0, 1 << 20, 1<<20 + 1, 3 << 20, 3<<20 + 31} {
		read := func(err error) error {
			return trailer.CheckFile(t.Context(), failingAt{whole, bad, err}, 3<<20, func(int64) {})
		}
		err := read(syscall.EIO)
		require.ErrorIs(t, err, syscall.EIO)
		require.NotErrorIs(t, err, snapshot.ErrTruncated)
		require.ErrorIs(t, read(io.EOF), snapshot.ErrTruncated)
	}
}

// A file that is cut while it is verified ended early.
func TestVerifyOfAFileThatShrinks(t *testing.T) {
	content := snaptest.NewDB().Large(20_000, 1000).Bytes(t, true)
	for _, left := range []int64{1 << 20, -32, -1} { // of the file; negative: from its end
		path := filepath.Join(snaptest.MemoryDir(t), "db")
		require.NoError(t, os.WriteFile(path, content, 0o600))
		info, err := os.Stat(path)
		require.NoError(t, err)
		if left < 0 {
			left += info.Size()
		}
		var once sync.Once
		st, err := snapshot.New(snapshot.WithProgress(func(snapshot.Progress) {
			once.Do(func() { require.NoError(t, os.Truncate(path, left)) })
		})).Verify(context.Background(), path)
		require.ErrorIs(t, err, snapshot.ErrTruncated)
		require.Zero(t, st)
	}
}

// A context that ends in the middle ends the call, and nothing stays behind.
func TestStatusCancelled(t *testing.T) {
	snaptest.NoLeaks(t)
	path := snaptest.NewDB().Large(20_000, 1000).Write(t, filepath.Join(t.TempDir(), "db"), true)
	for _, call := range []func(context.Context, apitest.Manager) (snapshot.Status, error){
		func(ctx context.Context, m apitest.Manager) (snapshot.Status, error) {
			return m.StatusContext(ctx, path)
		},
		func(ctx context.Context, m apitest.Manager) (snapshot.Status, error) { return m.Verify(ctx, path) },
	} {
		for _, at := range []int{0, 3} {
			var n int
			var st snapshot.Status
			err := error(nil)
			for err == nil { // where another goroutine does the work, there are few reports
				n = 0
				ctx, cancel := context.WithCancel(context.Background())
				st, err = call(ctx, snapshot.New(snapshot.WithProgress(func(snapshot.Progress) {
					if n++; n > at {
						cancel()
					}
				})))
				cancel()
			}
			require.ErrorIs(t, err, context.Canceled)
			require.Equal(t, 1, strings.Count(err.Error(), "context canceled"), "said once: %v", err)
			require.LessOrEqual(t, n, at+5, "reads go on")
			require.Zero(t, st)
		}
		ctx, cancel := context.WithDeadline(context.Background(), time.Unix(0, 0))
		_, err := call(ctx, snapshot.New())
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
}

// A snapshot of one member matches all members of its cluster, after more writes and
// compactions too, and no member of another cluster.
func TestMatch(t *testing.T) {
	urls := snaptest.FreePeerURLs(t, 3)
	members := make([]snaptest.Member, len(urls))
	for i, url := range urls {
		members[i] = snaptest.Member{Name: string(rune('a' + i)), PeerURL: url}
	}
	cluster := snaptest.StartCluster(t, members)
	cfg := clientv3.Config{}
	for _, e := range cluster {
		cfg.Endpoints = append(cfg.Endpoints, e.Endpoint())
	}
	cli := cluster[0].Client()
	write := func(keys ...string) (revision int64) {
		for _, key := range keys {
			resp, err := cli.Put(t.Context(), key, "value of "+key)
			require.NoError(t, err)
			revision = resp.Header.Revision
		}
		return revision
	}
	write("a", "b", "a", "c")
	m, path := snapshot.New(), filepath.Join(t.TempDir(), "db")
	_, err := cluster[1].Client().Get(t.Context(), "a") // waits until the member has caught up
	require.NoError(t, err)
	require.NoError(t, m.Save(t.Context(), cluster[1].ClientConfig(), path))
	require.NoError(t, m.Match(t.Context(), cfg, path))
	write("d", "a")
	require.NoError(t, m.Match(t.Context(), cfg, path))
	_, err = cli.Compact(t.Context(), 3, clientv3.WithCompactPhysical())
	require.NoError(t, err)
	require.NoError(t, m.Match(t.Context(), cfg, path), "compacted below the snapshot's revision")

	_, err = cli.Compact(t.Context(), write("e"))
	require.NoError(t, err)
	err = m.Match(t.Context(), cfg, path)
	require.ErrorIs(t, err, snapshot.ErrCompacted)
	require.NotErrorIs(t, err, snapshot.ErrMismatch)

	other := snaptest.Start(t)
	for range 9 {
		_, err := other.Client().Put(t.Context(), "a", "else")
		require.NoError(t, err)
	}
	cfg.Endpoints = []string{other.Endpoint()}
	err = m.Match(t.Context(), cfg, path)
	require.ErrorIs(t, err, snapshot.ErrMismatch)
	require.ErrorContains(t, err, other.Endpoint())
	var e *snapshot.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "match", e.Op)

	require.ErrorIs(t, m.Match(t.Context(), clientv3.Config{}, path), snapshot.ErrEndpoints)
	cfg.Endpoints = []string{snaptest.RefusingEndpoint(t)}
	require.ErrorIs(t, snapshot.New(snapshot.WithConnectTimeout(1)).Match(t.Context(), cfg, path), snapshot.ErrUnreachable)
}
