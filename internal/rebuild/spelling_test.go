package rebuild_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// spellings are configurations that name one directory in two ways, where names
// that differ in case are one.
var spellings = map[string]struct {
	data, wal, snapshot string // below a directory that has "Backups/snap.db"
	want                string
}{
	"same":                      {data: "Dir", wal: "dir", want: "must not be the data directory itself"},
	"WAL above":                 {data: "X/Dir/x", wal: "X/dir", want: "must not contain the data directory"},
	"WAL below":                 {data: "X/Dir", wal: "X/dir/wal", want: "must be outside of the data directory"},
	"WAL in snap":               {data: "X/Dir", wal: "X/dir/member/Snap", want: "must be outside of the data directory"},
	"snapshot in data":          {data: "backups", snapshot: "Backups/snap.db", want: "must be outside of the data directory"},
	"snapshot in WAL":           {data: "Dir", wal: "BACKUPS", snapshot: "Backups/snap.db", want: "must be outside of OutputWALDir"},
	"snapshot, spelled, in WAL": {data: "Dir", wal: "Backups", snapshot: "backups/SNAP.DB", want: "must be outside of OutputWALDir"},
}

// requireSpellings fails unless m refuses every one of spellings before it writes
// anything, and still restores what is in order, in root.
func requireSpellings(t *testing.T, m apitest.Manager, rec *durabletest.Recorder, root string) {
	t.Helper()
	require.NoError(t, os.Mkdir(filepath.Join(root, "Backups"), 0o700))
	path := snaptest.History(t).Write(t, filepath.Join(root, "Backups", "snap.db"), true)
	before := snaptest.TreeList(t, root)
	for name, c := range spellings {
		cfg := apitest.Config(path, filepath.Join(root, c.data))
		if c.wal != "" {
			cfg.OutputWALDir = filepath.Join(root, c.wal)
		}
		if c.snapshot != "" {
			cfg.SnapshotPath = filepath.Join(root, c.snapshot)
		}
		for _, into := range []bool{false, true} {
			cfg.AllowEmptyDataDir = into
			err := m.Restore(cfg)
			require.ErrorIs(t, err, snapshot.ErrConfig, name)
			require.ErrorContains(t, err, c.want, name)
			require.Empty(t, rec.Trace(root), name)
			require.Equal(t, before, snaptest.TreeList(t, root), name)
		}
	}
	cfg := apitest.Config(path, filepath.Join(root, "New"))
	cfg.OutputWALDir = filepath.Join(root, "new", "member", "log")
	require.NoError(t, m.Restore(cfg))
	require.DirExists(t, filepath.Join(root, "New", "member", "log"))
	require.NoError(t, m.Restore(apitest.Config(path, filepath.Join(root, "Backups", "Data"))))
}

func TestRestoreTwoSpellings(t *testing.T) {
	var rec durabletest.Recorder
	fsys := durabletest.Fold{FS: apitest.QuickFS(&rec), Same: strings.EqualFold}
	requireSpellings(t, apitest.OnFS(fsys, nil), &rec, t.TempDir())
}

// Where nothing shows beforehand which names are one, the directories that are
// made do.
func TestRestoreTwoForms(t *testing.T) {
	path := snaptest.SmallFile(t)
	fsys := durabletest.Fold{FS: durable.OS, Same: func(a, b string) bool {
		return strings.ReplaceAll(a, "e\u0301", "\u00e9") == strings.ReplaceAll(b, "e\u0301", "\u00e9")
	}}
	root := t.TempDir()
	cfg := apitest.Config(path, filepath.Join(root, "\u00e9", "data"))
	cfg.OutputWALDir = filepath.Join(root, "e\u0301")
	require.ErrorIs(t, apitest.OnFS(fsys, nil).Restore(cfg), snapshot.ErrConfig)
	require.Empty(t, snaptest.TreeList(t, root))
}
