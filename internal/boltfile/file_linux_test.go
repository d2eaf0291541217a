package boltfile_test

import (
	"context"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/snaptest/pagecache"
)

func dropCache(tb testing.TB, f *os.File) {
	tb.Helper()
	require.NoError(tb, pagecache.Drop(f.Name()))
}

// cachedShare is the share of the pages of f that are in the page cache.
func cachedShare(t *testing.T, f *os.File) float64 {
	t.Helper()
	share, err := pagecache.Share(f.Name())
	require.NoError(t, err)
	return share
}

// A file that is on the disk is in the page cache when it has been read ahead:
// more of it than the kernel's own read-ahead, of a few MiB, would bring.
func TestReadAheadFillsCache(t *testing.T) {
	const size = 64<<20 + 100
	f, err := os.Open(writeFile(t, make([]byte, size)))
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	pagecache.MakeCold(t, f.Name())
	stop := boltfile.ReadAhead(t.Context(), f, size)
	require.Eventually(t, func() bool { return cachedShare(t, f) == 1 }, time.Minute, time.Millisecond)
	stop()
}

func TestReadStretch(t *testing.T) {
	const size = 1 << 20
	f, err := os.Open(writeFile(t, make([]byte, size)))
	require.NoError(t, err)
	require.NoError(t, boltfile.ReadStretch(t.Context(), f, 0, size))
	require.NoError(t, boltfile.ReadStretch(t.Context(), f, size-1, size))
	require.ErrorIs(t, boltfile.ReadStretch(t.Context(), f, 0, size+1), io.ErrUnexpectedEOF, "a file that has become shorter")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, boltfile.ReadStretch(ctx, f, 0, size), context.Canceled)
	require.NoError(t, f.Close())
	require.Error(t, boltfile.ReadStretch(t.Context(), f, 0, size))
}
