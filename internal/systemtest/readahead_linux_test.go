package systemtest_test

// Status, Verify and Restore read a cold file ahead. In every run on a disk.

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/pagecache"
	"etcd.example/snapshot/internal/snaptest/short"
)

// Status and Verify have a cold file read ahead of them. They stand still here,
// before they have read anything, until all of it is in the page cache.
func TestStatusReadsAhead(t *testing.T) {
	short.Skip(t, "reads 30 MB from a cold disk")
	path := snaptest.NewDB().Large(20_000, 1500).Write(t, filepath.Join(t.TempDir(), snapshotName), true)
	for op, call := range map[string]func(apitest.Manager) (snapshot.Status, error){
		"status": func(m apitest.Manager) (snapshot.Status, error) { return m.StatusContext(t.Context(), path) },
		"verify": func(m apitest.Manager) (snapshot.Status, error) { return m.Verify(t.Context(), path) },
	} {
		t.Run(op, func(t *testing.T) {
			pagecache.MakeCold(t, path)
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
	short.Skip(t, "reads 30 MB from a cold disk")
	path := snaptest.NewDB().Large(20_000, 1500).Write(t, filepath.Join(t.TempDir(), snapshotName), true)
	pagecache.MakeCold(t, path)
	cfg := apitest.Config(path, filepath.Join(t.TempDir(), "data"))
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
			require.NoError(t, pagecache.Drop(staged()))
		case p.Phase == snapshot.PhaseCopy && p.Done > 0 && waited == nil:
			await(p.Phase, path)
		case p.Phase == snapshot.PhaseCheck && p.Done == 0:
			await(p.Phase, staged())
		}
	}))
	require.NoError(t, m.RestoreContext(t.Context(), cfg))
	require.Equal(t, []snapshot.Phase{snapshot.PhaseCopy, snapshot.PhaseCheck}, waited)
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

func cachedShare(t *testing.T, path string) float64 {
	t.Helper()
	share, err := pagecache.Share(path)
	require.NoError(t, err)
	return share
}
