package snapshot_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
)

// Status and Verify have a cold file read ahead of them. They stand still here,
// before they have read anything, until all of it is in the page cache.
func TestStatusReadsAhead(t *testing.T) {
	path := snaptest.NewDB().Large(20_000, 1500).Write(t, filepath.Join(t.TempDir(), snapshotName), true)
	for op, call := range map[string]func(*snapshot.V3Manager) (snapshot.Status, error){
		"status": func(m *snapshot.V3Manager) (snapshot.Status, error) { return m.StatusContext(t.Context(), path) },
		"verify": func(m *snapshot.V3Manager) (snapshot.Status, error) { return m.Verify(t.Context(), path) },
	} {
		t.Run(op, func(t *testing.T) {
			makeCold(t, path)
			waited := false
			m := snapshot.New(snapshot.WithProgress(func(p snapshot.Progress) {
				if p.Done == 0 {
					awaitCached(t, path)
					waited = true
				}
			}))
			_, err := call(m)
			require.NoError(t, err)
			require.True(t, waited)
		})
	}
}

// What a restore reads is read ahead of it: the snapshot while it is copied, and
// a copy that is not in memory, as one that shares the blocks of the snapshot,
// while its structure is checked. The restore stands still here until all of the
// file is in the page cache.
func TestRestoreReadsAhead(t *testing.T) {
	path := snaptest.NewDB().Large(20_000, 1500).Write(t, filepath.Join(t.TempDir(), snapshotName), true)
	makeCold(t, path)
	cfg := config(path, filepath.Join(t.TempDir(), "data"))
	cfg.SkipHashCheck = true // the digest would read the copy
	var waited []snapshot.Phase
	await := func(phase snapshot.Phase, path string) {
		awaitCached(t, path)
		waited = append(waited, phase)
	}
	staged := func() string {
		found, err := filepath.Glob(filepath.Join(filepath.Dir(cfg.OutputDataDir), "*", "*", "member", "snap", "db"))
		require.NoError(t, err)
		require.Len(t, found, 1)
		return found[0]
	}
	m := snapshot.New(snapshot.WithProgress(func(p snapshot.Progress) {
		switch {
		case p.Phase == snapshot.PhaseCopy && p.Done == p.Total:
			dropCache(t, staged())
		case p.Phase == snapshot.PhaseCopy && p.Done > 0 && waited == nil:
			await(p.Phase, path)
		case p.Phase == snapshot.PhaseCheck && p.Done == 0:
			await(p.Phase, staged())
		}
	}))
	require.NoError(t, m.RestoreContext(t.Context(), cfg))
	require.Equal(t, []snapshot.Phase{snapshot.PhaseCopy, snapshot.PhaseCheck}, waited)
}

// makeCold takes a file out of the page cache, or skips the test.
func makeCold(t *testing.T, path string) {
	t.Helper()
	dropCache(t, path)
	if cachedShare(t, path) == 1 {
		t.Skip("temporary files are in memory here, there is no disk to read from")
	}
}

// awaitCached waits until a file is in the page cache, but for its trailer.
func awaitCached(t *testing.T, path string) {
	t.Helper()
	deadline := time.After(time.Minute)
	for cachedShare(t, path) < 0.999 {
		select {
		case <-deadline:
			require.FailNow(t, "the file is not read ahead")
		case <-time.After(time.Millisecond):
		}
	}
}

// dropCache takes a file out of the page cache.
func dropCache(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	require.NoError(t, f.Sync())
	require.NoError(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}

// cachedShare is how much of a file is in the page cache, 1 for all of it.
func cachedShare(t *testing.T, path string) float64 {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	info, err := f.Stat()
	require.NoError(t, err)
	m, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	require.NoError(t, err)
	defer func() { require.NoError(t, unix.Munmap(m)) }()
	page := os.Getpagesize()
	pages := make([]byte, (len(m)+page-1)/page)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(m))),
		uintptr(len(m)), uintptr(unsafe.Pointer(unsafe.SliceData(pages))))
	require.Zero(t, errno)
	in := 0
	for _, p := range pages {
		in += int(p & 1)
	}
	return float64(in) / float64(len(pages))
}
