package systemtest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

var (
	update = flag.Bool("update", false, "rewrite the golden traces")
	every  = flag.Bool("every", false, "try every failure point, not a sample")
)

// operation is one call that puts something on disk, below a root directory.
// Whatever happens to it, what is there afterwards is what was there before or
// the complete outcome.
type operation struct {
	name string
	// prepare makes what is there before.
	prepare func(tb testing.TB, root string)
	// run makes the call.
	run func(m apitest.Manager, root string) error
	// commit is the path below root that stands for the outcome.
	commit string
	// config is that of Restore.
	config func(root string) snapshot.RestoreConfig
}

// snapshotName is the snapshot below the root from which restores read.
const snapshotName = "snap.db"

// enoughForWriteback is a size in bytes of a snapshot at which Save asks for
// write-back before the end.
const enoughForWriteback = 9 << 20

// operations are all of them, with a server for the saves.
func operations(tb testing.TB, saveSize int) []operation {
	db := snaptest.Opaque(saveSize)
	server := snaptest.Serve(tb, func(c *snaptest.SnapshotCall) error {
		c.Chunk = 1 << 20
		return c.SendSnapshot(db)
	})
	return append(restores(smallSnapshot(tb)), saves(server.ClientConfig())...)
}

// smallSnapshot has a handful of leaf pages.
func smallSnapshot(tb testing.TB) []byte { return snaptest.NewDB().Large(6, 1500).Bytes(tb, true) }

// restores are Restore and RestoreFrom with every way to lay out the target.
func restores(content []byte) []operation {
	var all []operation
	for _, layout := range []struct {
		name, wal string
		existing  bool
	}{
		{name: "new"},
		{name: "new, separate WAL", wal: "log/wal"},
		{name: "existing", existing: true},
		{name: "existing, separate WAL", wal: "log/wal", existing: true},
	} {
		dir := "srv/data"
		if layout.existing {
			dir = "data"
		}
		prepare := func(tb testing.TB, root string) {
			require.NoError(tb, os.WriteFile(filepath.Join(root, snapshotName), content, 0o600))
			if layout.existing {
				require.NoError(tb, os.MkdirAll(filepath.Join(root, dir, "lost+found"), 0o700))
			}
		}
		target := func(root string) snapshot.RestoreConfig {
			cfg := apitest.Config(filepath.Join(root, snapshotName), filepath.Join(root, dir))
			if layout.wal != "" {
				cfg.OutputWALDir = filepath.Join(root, layout.wal)
			}
			cfg.AllowEmptyDataDir = layout.existing
			return cfg
		}
		all = append(all, operation{
			name: "Restore, " + layout.name, prepare: prepare, config: target, commit: dir + "/member",
			run: func(m apitest.Manager, root string) error { return m.Restore(target(root)) },
		}, operation{
			name: "RestoreFrom, " + layout.name, prepare: prepare, config: target, commit: dir + "/member",
			run: func(m apitest.Manager, root string) error {
				cfg := target(root)
				f, err := os.Open(cfg.SnapshotPath)
				if err != nil {
					return err
				}
				defer func() { _ = f.Close() }()
				cfg.SnapshotPath = ""
				return m.RestoreFrom(context.Background(), f, cfg)
			},
		})
	}
	return all
}

// saves are Save to a new path, and over a file.
func saves(cfg clientv3.Config) []operation {
	save := func(m apitest.Manager, root string) error {
		return m.Save(context.Background(), cfg, filepath.Join(root, "dir", "db"))
	}
	mkdir := func(tb testing.TB, root string) { require.NoError(tb, os.Mkdir(filepath.Join(root, "dir"), 0o700)) }
	return []operation{
		{name: "Save, new", run: save, prepare: mkdir},
		{name: "Save, replace", run: save, prepare: func(tb testing.TB, root string) {
			mkdir(tb, root)
			require.NoError(tb, os.WriteFile(filepath.Join(root, "dir", "db"), []byte(apitest.Before), 0o600))
		}},
	}
}

// root is a new directory with what is there before op.
func (op operation) root(tb testing.TB) string {
	tb.Helper()
	root := snaptest.MemoryDir(tb)
	op.prepare(tb, root)
	return root
}

// outcomes are what is below the root before op and after it has succeeded.
func (op operation) outcomes(tb testing.TB) (absent, complete listing) {
	tb.Helper()
	root := op.root(tb)
	absent = list(tb, root)
	require.NoError(tb, op.run(apitest.Quick(), root))
	complete = list(tb, root)
	require.NotEqual(tb, absent, complete)
	return absent, complete
}

// committed reports whether a restore has made its target.
func (op operation) committed(tb testing.TB, root string) bool {
	tb.Helper()
	if op.commit == "" {
		return false // Save always replaces
	}
	_, err := os.Lstat(filepath.Join(root, op.commit))
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(tb, err)
	}
	return err == nil
}

// requireMended makes the call again, as a user would after a kill or a power
// cut, without cleaning up. The target must be absent or complete before, and
// complete with nothing left beside it afterwards.
func (op operation) requireMended(tb testing.TB, root string, complete listing) {
	tb.Helper()
	if op.committed(tb, root) {
		require.True(tb, complete.within(list(tb, root)), "between absent and complete:\n%v", list(tb, root).minus(complete))
		require.ErrorIs(tb, op.run(apitest.Quick(), root), snapshot.ErrExists)
	} else {
		require.NoError(tb, op.run(apitest.Quick(), root))
	}
	requireListing(tb, complete, root)
}

// listing is what a directory holds: files with size and digest, directories
// with a slash at the end.
type listing map[string]string

func (l listing) within(other listing) bool {
	for path, content := range l {
		if got, ok := other[path]; !ok || got != content {
			return false
		}
	}
	return true
}

// minus is what is in l and not, or not the same, in other.
func (l listing) minus(other listing) listing {
	diff := maps.Clone(l)
	maps.DeleteFunc(diff, func(path, content string) bool { got, ok := other[path]; return ok && got == content })
	return diff
}

func requireListing(tb testing.TB, want listing, root string, msg ...any) {
	tb.Helper()
	got := list(tb, root)
	if !maps.Equal(want, got) {
		require.FailNow(tb, fmt.Sprintf("missing or different: %v\nleft over: %v", want.minus(got), got.minus(want)), msg...)
	}
}

func list(tb testing.TB, root string) listing {
	tb.Helper()
	l := listing{}
	require.NoError(tb, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			l[rel+"/"] = ""
			return nil
		}
		l[rel], err = digest(path)
		return err
	}))
	return l
}

// digest is the size of a file and the SHA-256 of its blocks that are not zero.
func digest(path string) (_ string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	buf, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	for off := int64(0); off < info.Size(); {
		if off, err = nextData(f, off, info.Size()); err != nil || off >= info.Size() {
			break
		}
		off -= off % int64(len(buf))
		n, rerr := f.ReadAt(buf, off)
		if rerr != nil && !errors.Is(rerr, io.EOF) {
			return "", rerr
		}
		if !bytes.Equal(buf[:n], zeros[:n]) {
			_, _ = fmt.Fprintf(h, "%d:", off)
			_, _ = h.Write(buf[:n])
		}
		off += int64(n)
	}
	return fmt.Sprintf("%d bytes, %x", info.Size(), h.Sum(nil)[:8]), err
}
