package rebuild_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// The WAL directory may be on another file system than the data directory.
func TestRestoreWALOnAnotherFileSystem(t *testing.T) {
	const memory = "/dev/shm"
	dir := t.TempDir()
	if same, err := durable.SameDevice(durable.OS, dir, memory); err != nil || same {
		t.Skipf("%s is no other file system here: %v", memory, err)
	}
	other, err := os.MkdirTemp(memory, "snapshot-test-*")
	require.NoError(t, err)
	defer func() { require.NoError(t, os.RemoveAll(other)) }()

	cfg := apitest.Config(snaptest.SmallFile(t), filepath.Join(dir, "data"))
	cfg.OutputWALDir = filepath.Join(other, "wal")
	require.NoError(t, snapshot.New().Restore(cfg))
	require.Equal(t, []string{"wal/", "wal/0000000000000000-0000000000000000.wal"}, snaptest.TreeList(t, other))
	require.FileExists(t, filepath.Join(dir, "data", "member", "snap", "db"))
	require.NoDirExists(t, filepath.Join(dir, "data", "member", "wal"))

	cfg.SnapshotPath, cfg.OutputDataDir = "/dev/null", filepath.Join(dir, "second")
	cfg.OutputWALDir = filepath.Join(other, "second")
	require.Error(t, snapshot.New().Restore(cfg))
	require.NoDirExists(t, cfg.OutputWALDir)
}
