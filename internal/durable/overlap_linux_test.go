package durable_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
)

// A directory that is mounted in a second place is one directory.
func TestTargetMountedTwice(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"vol/data", "again"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o700))
	}
	again := filepath.Join(root, "again")
	if err := unix.Mount(filepath.Join(root, "vol"), again, "", unix.MS_BIND, ""); err != nil {
		t.Skip("no mount: ", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(again, 0)) })
	for name, c := range map[string]struct{ dir, wal string }{
		"same":                 {"vol/a", "again/a"},
		"WAL below":            {"vol/a", "again/a/wal"},
		"WAL above":            {"vol/a/b", "again/a"},
		"WAL below, there":     {"vol/data", "again/data/wal"},
		"WAL is the staging":   {"vol/a", "again/.a.restore"},
		"WAL above, and there": {"again/b", "vol"},
	} {
		t.Run(name, func(t *testing.T) {
			var rec durabletest.Recorder
			_, err := durable.Open(wrap(&rec), durable.TargetConfig{
				Dir: filepath.Join(root, c.dir), WALDir: filepath.Join(root, c.wal), AllowEmptyDir: true,
			})
			require.ErrorIs(t, err, durable.ErrNested)
			require.Empty(t, rec.Trace(root))
		})
	}
}
