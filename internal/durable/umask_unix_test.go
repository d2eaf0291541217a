//go:build unix

package durable_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
)

func setUmask(mask int) { syscall.Umask(mask) }

// Permissions do not depend on the umask, those of directories made above the
// target included.
func TestUmask(t *testing.T) {
	for _, mask := range []string{"0", "0077", "0177", "0400", "0777"} {
		t.Run(mask, func(t *testing.T) {
			root := t.TempDir()
			startChild(t, "umask", mask, root)
			requireSavedAndPublished(t, root)
		})
	}
}

func requireSavedAndPublished(t *testing.T, root string) {
	t.Helper()
	requirePerm(t, root)
	want := layout{dir: "srv/data", wal: "log/wal"}.complete()
	want["db"] = "new"
	require.Equal(t, want, list(t, root))
}

// A set-group-ID bit that comes from above stays.
func TestModesKeepSetgid(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.Chmod(root, 0o700|os.ModeSetgid))
	require.NoError(t, durable.OS.Mkdir(filepath.Join(root, "plain"), 0o700))
	plain, err := os.Stat(filepath.Join(root, "plain"))
	require.NoError(t, err)
	name := filepath.Join(root, "changed")
	require.NoError(t, durable.OS.Mkdir(name, 0o777)) // which the umask, most likely, withholds a part of
	info, err := os.Stat(name)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o777), info.Mode().Perm())
	require.Equal(t, plain.Mode()&os.ModeSetgid, info.Mode()&os.ModeSetgid)
}
