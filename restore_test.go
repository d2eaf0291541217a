package snapshot_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

func TestRestoreLeavesNothingButTheDirectory(t *testing.T) {
	snaptest.NoLeaks(t)
	dir := t.TempDir()
	require.NoError(t, snapshot.New().Restore(apitest.Config(snaptest.SmallFile(t), filepath.Join(dir, "a", "b", "data"))))
	require.Equal(t, []string{
		"a/", "a/b/", "a/b/data/", "a/b/data/member/",
		"a/b/data/member/snap/", "a/b/data/member/snap/0000000000000001-0000000000000001.snap", "a/b/data/member/snap/db",
		"a/b/data/member/wal/", "a/b/data/member/wal/0000000000000000-0000000000000000.wal",
	}, snaptest.TreeList(t, dir))
	require.NoError(t, filepath.WalkDir(filepath.Join(dir, "a"), func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		require.Equal(t, want, info.Mode().Perm(), path)
		return nil
	}))
}

func TestRestoreDefaults(t *testing.T) {
	path := snaptest.SmallFile(t)
	t.Chdir(t.TempDir())
	cfg := apitest.Config(path, "")
	require.NoError(t, snapshot.New().Restore(cfg))
	require.FileExists(t, "m0.etcd/member/snap/db")
	require.DirExists(t, "m0.etcd/member/wal")
}

func TestRestoreSeparateWAL(t *testing.T) {
	dir := t.TempDir()
	cfg := apitest.Config(snaptest.SmallFile(t), filepath.Join(dir, "data"))
	cfg.OutputWALDir = filepath.Join(dir, "fast", "wal")
	require.NoError(t, snapshot.New().Restore(cfg))
	require.Equal(t, []string{
		"data/", "data/member/", "data/member/snap/", "data/member/snap/0000000000000001-0000000000000001.snap", "data/member/snap/db",
		"fast/", "fast/wal/", "fast/wal/0000000000000000-0000000000000000.wal",
	}, snaptest.TreeList(t, dir))
}

// What must not be there yet.
func TestRestoreTargetExists(t *testing.T) {
	path := snaptest.SmallFile(t)
	for name, tt := range map[string]struct {
		make  func(dir string) error
		allow bool
		want  error
	}{
		"directory":                      {func(dir string) error { return os.MkdirAll(filepath.Join(dir, "data", "x"), 0o700) }, false, snapshot.ErrExists},
		"empty directory":                {func(dir string) error { return os.Mkdir(filepath.Join(dir, "data"), 0o700) }, false, snapshot.ErrExists},
		"file":                           {func(dir string) error { return os.WriteFile(filepath.Join(dir, "data"), nil, 0o600) }, false, snapshot.ErrExists},
		"dangling link":                  {func(dir string) error { return os.Symlink("nowhere", filepath.Join(dir, "data")) }, false, snapshot.ErrExists},
		"WAL directory":                  {func(dir string) error { return os.Mkdir(filepath.Join(dir, "wal"), 0o700) }, false, snapshot.ErrExists},
		"allowed: not empty":             {func(dir string) error { return os.MkdirAll(filepath.Join(dir, "data", "x"), 0o700) }, true, snapshot.ErrExists},
		"allowed: file":                  {func(dir string) error { return os.WriteFile(filepath.Join(dir, "data"), nil, 0o600) }, true, snapshot.ErrExists},
		"allowed: WAL directory":         {func(dir string) error { return os.Mkdir(filepath.Join(dir, "wal"), 0o700) }, true, snapshot.ErrExists},
		"allowed: does not exist":        {func(string) error { return nil }, true, nil},
		"allowed: empty":                 {func(dir string) error { return os.Mkdir(filepath.Join(dir, "data"), 0o755) }, true, nil},
		"allowed: holds only lost+found": {func(dir string) error { return os.MkdirAll(filepath.Join(dir, "data", "lost+found"), 0o700) }, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			snaptest.NoLeaks(t)
			dir := t.TempDir()
			require.NoError(t, tt.make(dir))
			before := snaptest.TreeList(t, dir)
			cfg := apitest.Config(path, filepath.Join(dir, "data"))
			cfg.OutputWALDir = filepath.Join(dir, "wal")
			cfg.AllowEmptyDataDir = tt.allow
			err := snapshot.New().Restore(cfg)
			if tt.want == nil {
				require.NoError(t, err)
				require.FileExists(t, filepath.Join(dir, "data", "member", "snap", "db"))
				return
			}
			require.ErrorIs(t, err, tt.want)
			require.Equal(t, before, snaptest.TreeList(t, dir), "nothing new on disk")
		})
	}
}

// Input that is refused, each with its sentinel, and nothing on disk.
func TestRestoreBadInput(t *testing.T) {
	valid := snaptest.SmallFile(t)
	whole, err := os.ReadFile(valid)
	require.NoError(t, err)
	inputs := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(inputs, name)
		require.NoError(t, os.WriteFile(path, content, 0o600))
		return path
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 4
	wrongDigest := bytes.Clone(whole)
	wrongDigest[len(wrongDigest)-1] ^= 4
	damaged := file("structure", whole)
	root := snaptest.BucketRoot(t, damaged, "key")
	snaptest.SetPageField(t, damaged, root, snaptest.PageFlags, 0)
	snaptest.FixTrailer(t, damaged)
	resummed, err := os.ReadFile(damaged)
	require.NoError(t, err)
	notEtcd := snaptest.NewDB().DropBucket("meta").Write(t, filepath.Join(inputs, "not-etcd"), true)
	notEtcdBytes, err := os.ReadFile(notEtcd)
	require.NoError(t, err)

	for name, tt := range map[string]struct {
		content []byte
		skip    bool
		want    []error
	}{
		"empty":                {nil, false, []error{snapshot.ErrNoTrailer, snapshot.ErrTruncated}},
		"empty, unchecked":     {nil, true, []error{snapshot.ErrCorrupt, snapshot.ErrTruncated}},
		"one byte":             {whole[:1], false, []error{snapshot.ErrNoTrailer}},
		"half":                 {whole[:len(whole)/2], false, []error{snapshot.ErrNoTrailer, snapshot.ErrTruncated}},
		"half, unchecked":      {whole[:len(whole)/2], true, []error{snapshot.ErrCorrupt, snapshot.ErrTruncated}},
		"half with a trailer":  {whole[:4096*2+32], false, []error{snapshot.ErrChecksum, snapshot.ErrTruncated}},
		"trailer missing":      {whole[:len(whole)-32], false, []error{snapshot.ErrNoTrailer}},
		"trailer wrong":        {wrongDigest, false, []error{snapshot.ErrChecksum}},
		"byte flipped":         {flipped, false, []error{snapshot.ErrChecksum}},
		"structure":            {resummed, false, []error{snapshot.ErrCorrupt}},
		"structure, unchecked": {resummed, true, []error{snapshot.ErrCorrupt}},
		"not the data of etcd": {notEtcdBytes, false, []error{snapshot.ErrCorrupt}},
		"text":                 {bytes.Repeat([]byte("text"), 4096), true, []error{snapshot.ErrCorrupt}},
	} {
		t.Run(name, func(t *testing.T) {
			path := file("input", tt.content)
			for way, restore := range map[string]func(m apitest.Manager, cfg snapshot.RestoreConfig) error{
				"file": func(m apitest.Manager, cfg snapshot.RestoreConfig) error { return m.Restore(cfg) },
				"reader": func(m apitest.Manager, cfg snapshot.RestoreConfig) error {
					cfg.SnapshotPath = ""
					return m.RestoreFrom(context.Background(), bytes.NewReader(tt.content), cfg)
				},
			} {
				t.Run(way, func(t *testing.T) {
					snaptest.NoLeaks(t)
					dir := t.TempDir()
					cfg := apitest.Config(path, filepath.Join(dir, "sub", "data"))
					cfg.SkipHashCheck = tt.skip
					err := restore(snapshot.New(), cfg)
					for _, want := range tt.want {
						require.ErrorIs(t, err, want)
					}
					require.Empty(t, snaptest.TreeList(t, dir))
				})
			}
		})
	}
}

func TestRestoreSourceCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	m := snapshot.New()
	target := filepath.Join(dir, "data")
	require.ErrorIs(t, m.Restore(apitest.Config(filepath.Join(dir, "missing"), target)), fs.ErrNotExist)
	require.ErrorContains(t, m.Restore(apitest.Config("/dev", target)), "not a regular file")

	path := snaptest.SmallFile(t)
	db, err := bolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	require.ErrorIs(t, m.Restore(apitest.Config(path, target)), snapshot.ErrInUse)
	require.NoError(t, db.Close())
	require.Empty(t, snaptest.TreeList(t, dir))
}

// A db file out of a data directory has no trailer, and may be longer than its
// database.
func TestRestoreSkipHashCheck(t *testing.T) {
	dir := t.TempDir()
	path := snaptest.History(t).Write(t, filepath.Join(dir, "db"), false)
	want, err := snapshot.New().Status(path)
	require.NoError(t, err)
	snaptest.Edit(t, path, func(b []byte) []byte { return append(b, make([]byte, 40_960)...) })
	cfg := apitest.Config(path, filepath.Join(dir, "data"))
	require.ErrorIs(t, snapshot.New().Restore(cfg), snapshot.ErrNoTrailer)
	cfg.SkipHashCheck = true
	require.NoError(t, snapshot.New().Restore(cfg))
	got, err := snapshot.New().Status(filepath.Join(cfg.OutputDataDir, "member", "snap", "db"))
	require.NoError(t, err)
	require.Equal(t, want.Revision, got.Revision)
	require.Equal(t, want.TotalKey, got.TotalKey)
}

func TestRestoreFromReaders(t *testing.T) {
	path := snaptest.SmallFile(t)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, err = z.Write(whole)
	require.NoError(t, errors.Join(err, z.Close()))
	unzip := func(b []byte) io.Reader {
		r, err := gzip.NewReader(bytes.NewReader(b))
		require.NoError(t, err)
		return r
	}
	broken := errors.New("the object store went away")

	for name, tt := range map[string]struct {
		r    io.Reader
		want error
	}{
		"plain":           {bytes.NewReader(whole), nil},
		"gzip":            {unzip(zipped.Bytes()), nil},
		"byte by byte":    {iotest.OneByteReader(bytes.NewReader(whole)), nil},
		"hesitating":      {&hesitating{r: bytes.NewReader(whole)}, nil},
		"data with EOF":   {iotest.DataErrReader(bytes.NewReader(whole)), nil},
		"gzip cut":        {unzip(zipped.Bytes()[:zipped.Len()-2000]), snapshot.ErrTruncated},
		"cut":             {bytes.NewReader(whole[:len(whole)-5000]), snapshot.ErrTruncated},
		"own error":       {io.MultiReader(bytes.NewReader(whole[:30_000]), iotest.ErrReader(broken)), broken},
		"own error later": {io.MultiReader(bytes.NewReader(whole), iotest.ErrReader(broken)), broken},
		"no progress":     {stuck{}, io.ErrNoProgress},
	} {
		t.Run(name, func(t *testing.T) {
			snaptest.NoLeaks(t)
			dir := t.TempDir()
			cfg := apitest.Config("", filepath.Join(dir, "data"))
			err := snapshot.New().RestoreFrom(context.Background(), tt.r, cfg)
			if tt.want != nil {
				require.ErrorIs(t, err, tt.want)
				require.Empty(t, snaptest.TreeList(t, dir))
				return
			}
			require.NoError(t, err)
			apitest.RequireSameDirectory(t, path, cfg.OutputDataDir)
		})
	}
}

// hesitating has nothing to give every other time, and little in between.
type hesitating struct {
	r     io.Reader
	calls int
}

func (h *hesitating) Read(p []byte) (int, error) {
	if h.calls++; h.calls%2 == 0 {
		return 0, nil
	}
	return h.r.Read(p[:min(len(p), 100)])
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

// The same restore gives the same bytes, also with a bump and members enough to
// need a page of their own.
func TestRestoreGivesTheSameBytes(t *testing.T) {
	path := snaptest.SmallFile(t)
	cfg := apitest.Config(path, "")
	cfg.RevisionBump, cfg.MarkCompacted = 1000, true
	for i := range 7 {
		cfg.InitialCluster += fmt.Sprintf(",%s%d=http://10.0.0.%d:2380", strings.Repeat("long", 30), i, i)
	}
	first := filepath.Join(t.TempDir(), "data")
	for i := range 10 {
		cfg.OutputDataDir = filepath.Join(t.TempDir(), "data")
		if i == 0 {
			cfg.OutputDataDir = first
		}
		require.NoError(t, snapshot.New().Restore(cfg))
		apitest.RequireSameContent(t, first, cfg.OutputDataDir)
	}
}

// One manager, many restores at once: to different targets all succeed, to one
// target exactly one does.
func TestRestoreConcurrently(t *testing.T) {
	snaptest.NoLeaks(t)
	path := snaptest.SmallFile(t)
	dir := t.TempDir()
	m := snapshot.New()
	var wg sync.WaitGroup
	var won atomic.Int32
	for i := range 8 {
		wg.Go(func() {
			if err := m.Restore(apitest.Config(path, filepath.Join(dir, fmt.Sprint("own", i)))); err != nil {
				t.Errorf("own target: %v", err)
			}
		})
		wg.Go(func() {
			err := m.Restore(apitest.Config(path, filepath.Join(dir, "shared")))
			switch {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, snapshot.ErrExists) && !errors.Is(err, snapshot.ErrInUse):
				t.Errorf("shared target: %v", err)
			}
		})
		wg.Go(func() {
			if _, err := m.Status(path); err != nil {
				t.Errorf("status: %v", err)
			}
			if _, err := m.Verify(context.Background(), path); err != nil {
				t.Errorf("verify: %v", err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, int32(1), won.Load())
	apitest.RequireSameDirectory(t, path, filepath.Join(dir, "shared"))
	for i := range 8 {
		apitest.RequireSameDirectory(t, path, filepath.Join(dir, fmt.Sprint("own", i)))
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 9, "nothing is left beside the targets")
}

// A bump that leaves no room in an int64, which is known before the copy unless
// the snapshot is a stream; a last key that is no revision.
func TestRestoreBumpRefused(t *testing.T) {
	dir := t.TempDir()
	cfg := apitest.Config(snaptest.History(t).Write(t, filepath.Join(dir, "db"), true), filepath.Join(dir, "data"))
	cfg.RevisionBump, cfg.MarkCompacted = 1<<63-1, true
	var reported bool
	m := snapshot.New(snapshot.WithProgress(func(p snapshot.Progress) { reported = true }))
	err := m.Restore(cfg)
	require.ErrorIs(t, err, snapshot.ErrConfig)
	require.ErrorContains(t, err, "9223372036854775807")
	require.False(t, reported)

	stream, err := os.Open(cfg.SnapshotPath)
	require.NoError(t, err)
	defer func() { require.NoError(t, stream.Close()) }()
	fromReader := cfg
	fromReader.SnapshotPath = ""
	require.ErrorIs(t, m.RestoreFrom(t.Context(), stream, fromReader), snapshot.ErrConfig)
	require.NoDirExists(t, cfg.OutputDataDir)

	cfg.SnapshotPath = snaptest.History(t).Raw("key", "zzz", "no revision").Write(t, filepath.Join(dir, "db2"), true)
	cfg.RevisionBump = 10
	require.ErrorIs(t, snapshot.New().Restore(cfg), snapshot.ErrCorrupt)
	require.NoDirExists(t, cfg.OutputDataDir)
}

func TestRestoreBump(t *testing.T) {
	dir := t.TempDir()
	db := snaptest.History(t)
	cfg := apitest.Config(db.Write(t, filepath.Join(dir, "db"), true), filepath.Join(dir, "data"))
	cfg.RevisionBump, cfg.MarkCompacted = 1_000_000, true
	require.NoError(t, snapshot.New().Restore(cfg))
	st, err := snapshot.New().Verify(context.Background(), snaptest.AsSnapshot(t, filepath.Join(cfg.OutputDataDir, "member", "snap", "db")))
	require.NoError(t, err)
	require.Equal(t, db.Revision()+1_000_000, st.Revision)
}

// ".." after a symbolic link leads where it does in system calls, except in the
// names of directories: an etcd that is given the same ones must find them.
func TestRestoreDotsAfterLink(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "there", "deep"), 0o700))
	require.NoError(t, os.Symlink("there/deep", filepath.Join(root, "link")))
	snaptest.NewDB().Put("a", "b").Write(t, filepath.Join(root, "there", "db"), true)
	cfg := apitest.Config(root+"/link/../db", root+"/link/../data")
	cfg.OutputWALDir = root + "/link/../wal"
	require.NoError(t, snapshot.New().Restore(cfg))
	for _, name := range []string{"data/member/snap/db", "wal/0000000000000000-0000000000000000.wal"} {
		require.FileExists(t, filepath.Join(root, name))
	}
}
