package systemtest_test

// No call writes to the snapshot that it reads. In every run.

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// No operation writes to the snapshot that it reads, sound or damaged, with a
// trailer or without.
func TestReadingNeverWrites(t *testing.T) {
	whole := snaptest.History(t).Bytes(t, true)
	damaged := snaptest.History(t).Bytes(t, true)
	damaged[len(damaged)/2] ^= 4
	for name, content := range map[string][]byte{"sound": whole, "damaged": damaged, "cut": whole[:len(whole)/2], "db file": whole[:len(whole)-32]} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "db")
			require.NoError(t, os.WriteFile(path, content, 0o400))
			before, err := os.Stat(path)
			require.NoError(t, err)
			changed := changeTime(t, path)
			m := snapshot.New()
			for _, skip := range []bool{false, true} {
				_, _ = m.Status(path)
				_, _ = m.Verify(t.Context(), path)
				readAll(t, path)
				cfg := apitest.Config(path, filepath.Join(t.TempDir(), "data"))
				cfg.SkipHashCheck = skip
				_ = m.Restore(cfg)
			}
			after, err := os.Stat(path)
			require.NoError(t, err)
			require.True(t, os.SameFile(before, after))
			require.Equal(t, before.ModTime(), after.ModTime())
			require.Equal(t, before.Mode(), after.Mode())
			require.Equal(t, changed, changeTime(t, path), "attributes and links")
			got, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, content, got)
			require.Equal(t, []string{"db"}, snaptest.TreeList(t, dir), "nothing beside it")
		})
	}
}

// readAll asks everything that a Reader answers, if the file at path can be opened.
func readAll(t *testing.T, path string) (opened bool) {
	t.Helper()
	r, err := snapshot.New().Open(t.Context(), path)
	if err != nil {
		return false
	}
	askAll(t, r, "key-ab", "key")
	require.NoError(t, r.Close())
	return true
}
