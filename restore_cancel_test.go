package snapshot_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest"
)

func TestRestoreProgress(t *testing.T) {
	path := snaptest.NewDB().Large(20_000, 1000).Write(t, filepath.Join(t.TempDir(), "db"), true)
	info, err := os.Stat(path)
	require.NoError(t, err)
	for _, reader := range []bool{false, true} {
		var r recorder
		m := snapshot.New(snapshot.WithProgress(r.report))
		cfg := config(path, filepath.Join(t.TempDir(), "data"))
		if reader {
			f, err := os.Open(path)
			require.NoError(t, err)
			cfg.SnapshotPath = ""
			require.NoError(t, m.RestoreFrom(context.Background(), f, cfg))
			require.NoError(t, f.Close())
			require.Equal(t, snapshot.Progress{Op: "restore", Phase: snapshot.PhaseCopy}, r.all[0], "the total is not known")
		} else {
			require.NoError(t, m.Restore(cfg))
			r.requireProgress(t, "restore", snapshot.PhaseCopy, info.Size())
		}
		r.requireProgress(t, "restore", snapshot.PhaseCheck, info.Size()-32)
		r.requireProgress(t, "restore", snapshot.PhasePublish, 1)
		var phases []snapshot.Phase
		for _, p := range r.all {
			if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
				phases = append(phases, p.Phase)
			}
		}
		require.Equal(t, []snapshot.Phase{snapshot.PhaseCopy, snapshot.PhaseCheck, snapshot.PhasePublish}, phases)
	}
}

// Whenever the context ends, the call ends with its error and leaves nothing,
// or has done everything.
func TestRestoreCancelled(t *testing.T) {
	path := snaptest.NewDB().Large(20_000, 1000).Write(t, filepath.Join(t.TempDir(), "db"), true)
	var reports int
	require.NoError(t, snapshot.New(snapshot.WithProgress(func(snapshot.Progress) { reports++ })).Restore(config(path, filepath.Join(t.TempDir(), "data"))))
	cancelled := 0
	for at := 1; at <= reports; at++ {
		snaptest.NoLeaks(t)
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(context.Background())
		n := 0
		err := snapshot.New(snapshot.WithProgress(func(snapshot.Progress) {
			if n++; n == at {
				cancel()
			}
		})).RestoreContext(ctx, config(path, filepath.Join(dir, "data")))
		cancel()
		if err == nil {
			require.FileExists(t, filepath.Join(dir, "data", "member", "snap", "db"))
			continue
		}
		cancelled++
		require.ErrorIs(t, err, context.Canceled)
		require.Empty(t, snaptest.TreeList(t, dir))
	}
	require.GreaterOrEqual(t, cancelled, 5, "reports of the copy alone")
}

// cancelAt cancels before the nth operation of a kind.
type cancelAt struct {
	kind   string
	nth    int
	cancel context.CancelFunc
	seen   int
}

func (c *cancelAt) Before(op durabletest.Op) error {
	if op.Kind == c.kind {
		if c.seen++; c.seen == c.nth {
			c.cancel()
		}
	}
	return nil
}

func (*cancelAt) After(durabletest.Op, error) {}

// A slow disk is waited for a piece at a time, and between them the context can
// end the call.
func TestRestoreCancelledWhileTheDiskWrites(t *testing.T) {
	path := snaptest.NewDB().Large(20_000, 1000).Write(t, filepath.Join(t.TempDir(), "db"), true)
	for name, restore := range map[string]func(context.Context, *snapshot.V3Manager, snapshot.RestoreConfig) error{
		"Restore": func(ctx context.Context, m *snapshot.V3Manager, cfg snapshot.RestoreConfig) error {
			return m.RestoreContext(ctx, cfg)
		},
		"RestoreFrom": func(ctx context.Context, m *snapshot.V3Manager, cfg snapshot.RestoreConfig) error {
			f, err := os.Open(cfg.SnapshotPath)
			require.NoError(t, err)
			defer func() { require.NoError(t, f.Close()) }()
			cfg.SnapshotPath = ""
			return m.RestoreFrom(ctx, f, cfg)
		},
	} {
		t.Run(name, func(t *testing.T) {
			snaptest.NoLeaks(t)
			dir := t.TempDir()
			ctx, cancel := context.WithCancel(t.Context())
			hook := &cancelAt{kind: "await", nth: 2, cancel: cancel}
			m := snapshot.New(snapshot.WithFS(durabletest.Wrap(durable.OS, hook)))
			require.ErrorIs(t, restore(ctx, m, config(path, filepath.Join(dir, "data"))), context.Canceled)
			require.Equal(t, 2, hook.seen)
			require.Empty(t, snaptest.TreeList(t, dir))
		})
	}
}

// While the WAL is written nothing asks the context, but nothing is published
// either when that has ended.
func TestRestoreCancelledBeforeItIsPublished(t *testing.T) {
	path := write(t)
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := quick(&cancelAt{kind: "allocate", nth: 1, cancel: cancel}).RestoreContext(ctx, config(path, filepath.Join(dir, "data")))
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, snaptest.TreeList(t, dir))
}
