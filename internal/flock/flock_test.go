//go:build unix && !solaris && !aix

package flock_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/flock"
)

func open(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() }) // closed already in some tests
	return f
}

func TestLocks(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	a, b, c := open(t, name), open(t, name), open(t, name)
	require.NoError(t, flock.TryShared(a))
	require.NoError(t, flock.TryShared(b))
	require.ErrorIs(t, flock.TryExclusive(c), flock.ErrHeld)
	require.NoError(t, flock.Unlock(a))
	require.NoError(t, b.Close())
	require.NoError(t, flock.TryExclusive(c))
	require.ErrorIs(t, flock.TryShared(a), flock.ErrHeld)
	require.ErrorIs(t, flock.TryExclusive(a), flock.ErrHeld)
	require.ErrorContains(t, flock.TryShared(b), "closed")
	require.ErrorContains(t, flock.Unlock(b), "closed")
}
