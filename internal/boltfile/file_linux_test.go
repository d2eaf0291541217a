package boltfile_test

import (
	"context"
	"io"
	"os"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"etcd.example/snapshot/internal/boltfile"
)

func dropCache(tb testing.TB, f *os.File) {
	tb.Helper()
	require.NoError(tb, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}

// inCache is the number of bytes of f that are in the page cache.
func inCache(t *testing.T, f *os.File, size int) int {
	t.Helper()
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	require.NoError(t, err)
	defer func() { require.NoError(t, unix.Munmap(m)) }()
	page := os.Getpagesize()
	pages := make([]byte, (size+page-1)/page)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE,
		uintptr(unsafe.Pointer(unsafe.SliceData(m))), uintptr(size), uintptr(unsafe.Pointer(unsafe.SliceData(pages))))
	require.Zero(t, errno)
	n := 0
	for _, in := range pages {
		n += int(in&1) * page
	}
	return min(n, size)
}

// A file that is on the disk is in the page cache when it has been read ahead:
// more of it than the kernel's own read-ahead, of a few MiB, would bring.
func TestReadAheadFillsCache(t *testing.T) {
	const size = 64<<20 + 100
	f, err := os.Open(writeFile(t, make([]byte, size)))
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	require.NoError(t, f.Sync())
	dropCache(t, f)
	if inCache(t, f, size) == size {
		t.Skip("temporary files are in memory here, there is no disk to read from")
	}
	stop := boltfile.ReadAhead(t.Context(), f, size)
	require.Eventually(t, func() bool { return inCache(t, f, size) == size }, time.Minute, time.Millisecond)
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
