package apitest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
)

// RequireSameDirectory compares a restored directory with the one that Restore
// creates from the same snapshot.
func RequireSameDirectory(tb testing.TB, path, dir string) {
	tb.Helper()
	other := filepath.Join(tb.TempDir(), "data")
	require.NoError(tb, snapshot.New().Restore(Config(path, other)))
	RequireSameContent(tb, other, dir)
}

// RequireSameContent compares two directories and the files in them.
func RequireSameContent(tb testing.TB, other, dir string) {
	tb.Helper()
	list := snaptest.TreeList(tb, other)
	require.Equal(tb, list, snaptest.TreeList(tb, dir))
	for _, name := range list {
		if !strings.HasSuffix(name, "/") {
			want, err := os.ReadFile(filepath.Join(other, name))
			require.NoError(tb, err)
			got, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(tb, err)
			require.True(tb, bytes.Equal(want, got), name)
		}
	}
}
