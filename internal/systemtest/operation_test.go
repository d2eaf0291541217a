package systemtest_test

// The calls that write to disk, in every layout of the target: the sweeps, power
// cuts, traces and full disks try each of them. Other files use it.

import (
	"context"
	"errors"
	"flag"
	"io/fs"
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
