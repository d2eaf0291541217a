package rebuild_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
)

func TestRestoreProgress(t *testing.T) {
	path := snaptest.NewDB().Large(20_000, 1000).Write(t, filepath.Join(t.TempDir(), "db"), true)
	info, err := os.Stat(path)
	require.NoError(t, err)
	for _, reader := range []bool{false, true} {
		var r apitest.Recorder
		m := snapshot.New(snapshot.WithProgress(r.Report))
		cfg := apitest.Config(path, filepath.Join(t.TempDir(), "data"))
		if reader {
			f, err := os.Open(path)
			require.NoError(t, err)
			cfg.SnapshotPath = ""
			require.NoError(t, m.RestoreFrom(context.Background(), f, cfg))
			require.NoError(t, f.Close())
			require.Equal(t, snapshot.Progress{Op: "restore", Phase: snapshot.PhaseCopy}, r.All[0], "the total is not known")
		} else {
			require.NoError(t, m.Restore(cfg))
			r.RequireProgress(t, "restore", snapshot.PhaseCopy, info.Size())
		}
		r.RequireProgress(t, "restore", snapshot.PhaseCheck, info.Size()-32)
		r.RequireProgress(t, "restore", snapshot.PhasePublish, 1)
		var phases []snapshot.Phase
		for _, p := range r.All {
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
	path := snaptest.NewDB().Large(20_000, 1000).Write(t, filepath.Join(snaptest.MemoryDir(t), "db"), true)
	var reports int
	require.NoError(t, snapshot.New(snapshot.WithProgress(func(snapshot.Progress) { reports++ })).Restore(apitest.Config(path, filepath.Join(snaptest.MemoryDir(t), "data"))))
	cancelled := 0
	for at := 1; at <= reports; at += short.Step(1, 3) {
		snaptest.NoLeaks(t)
		dir := snaptest.MemoryDir(t)
		ctx, cancel := context.WithCancel(context.Background())
		n := 0
		err := snapshot.New(snapshot.WithProgress(func(snapshot.Progress) {
			if n++; n == at {
				cancel()
			}
		})).RestoreContext(ctx, apitest.Config(path, filepath.Join(dir, "data")))
		cancel()
		if err == nil {
			require.FileExists(t, filepath.Join(dir, "data", "member", "snap", "db"))
			continue
		}
		cancelled++
		require.ErrorIs(t, err, context.Canceled)
		require.Empty(t, snaptest.TreeList(t, dir))
	}
	require.GreaterOrEqual(t, cancelled, short.Or(5, 1), "reports of the copy alone")
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
	for name, restore := range map[string]func(context.Context, apitest.Manager, snapshot.RestoreConfig) error{
		"Restore": func(ctx context.Context, m apitest.Manager, cfg snapshot.RestoreConfig) error {
			return m.RestoreContext(ctx, cfg)
		},
		"RestoreFrom": func(ctx context.Context, m apitest.Manager, cfg snapshot.RestoreConfig) error {
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
			m := apitest.OnFS(durabletest.Wrap(durable.OS, hook), nil)
			require.ErrorIs(t, restore(ctx, m, apitest.Config(path, filepath.Join(dir, "data"))), context.Canceled)
			require.Equal(t, 2, hook.seen)
			require.Empty(t, snaptest.TreeList(t, dir))
		})
	}
}

// While the WAL is written nothing asks the context, but nothing is published
// either when that has ended.
func TestRestoreCancelledBeforeItIsPublished(t *testing.T) {
	path := snaptest.SmallFile(t)
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := apitest.Quick(&cancelAt{kind: "allocate", nth: 1, cancel: cancel}).RestoreContext(ctx, apitest.Config(path, filepath.Join(dir, "data")))
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, snaptest.TreeList(t, dir))
}

// slowFS writes 40 MiB a second, in the time of the bubble that it is used in.
type slowFS struct{ durable.FS }

func (slowFS) wait(n int64) { time.Sleep(time.Duration(n) * time.Second / (40 << 20)) }

func (s slowFS) CopyRange(dst durable.File, dstOff int64, src durable.File, srcOff, n int64) (int64, error) {
	s.wait(n)
	return s.FS.CopyRange(dst, dstOff, src, srcOff, n)
}

func (s slowFS) StartWriteback(f durable.File, off, n int64) error {
	s.wait(n)
	return s.FS.StartWriteback(f, off, n)
}

func (s slowFS) AwaitWriteback(f durable.File, off, n int64) error {
	s.wait(n)
	return s.FS.AwaitWriteback(f, off, n)
}

// No call of the system is for so many bytes that a slow disk takes long for it.
func TestRestoreCancelledOnASlowDisk(t *testing.T) {
	path := snaptest.NewDB().Large(40_000, 1000).Write(t, filepath.Join(snaptest.MemoryDir(t), "db"), true)
	for name, skip := range map[string]bool{"Restore": false, "Restore, no digest": true, "RestoreFrom": false} {
		t.Run(name, func(t *testing.T) {
			if name != "Restore" {
				short.Skip(t, "restores 40 MB again and again")
			}
			cancelled := 0
			for after := 5 * time.Millisecond; ; after += 230 * time.Millisecond {
				dir, finished := snaptest.MemoryDir(t), false
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					var at time.Time
					time.AfterFunc(after, func() { at = time.Now(); cancel() })
					m := apitest.OnFS(slowFS{apitest.QuickFS()}, nil)
					cfg := apitest.Config(path, filepath.Join(dir, "data"))
					cfg.SkipHashCheck = skip
					var err error
					if name == "RestoreFrom" {
						f, oerr := os.Open(path)
						require.NoError(t, oerr)
						defer func() { require.NoError(t, f.Close()) }()
						cfg.SnapshotPath = ""
						err = m.RestoreFrom(ctx, f, cfg)
					} else {
						err = m.RestoreContext(ctx, cfg)
					}
					if finished = err == nil; finished {
						return
					}
					require.ErrorIs(t, err, context.Canceled)
					require.LessOrEqual(t, time.Since(at), 100*time.Millisecond, "cancelled after %v", after)
				})
				if finished {
					break
				}
				cancelled++
				require.Empty(t, snaptest.TreeList(t, dir))
			}
			require.Greater(t, cancelled, 5)
		})
	}
}

// A disk that is quick is given more at a time, up to a bound.
func TestRestoreOnAQuickDisk(t *testing.T) {
	path := snaptest.NewDB().Large(40_000, 1000).Write(t, filepath.Join(t.TempDir(), "db"), true)
	dir := t.TempDir()
	var rec durabletest.Recorder
	synctest.Test(t, func(t *testing.T) { // where calls take no time at all
		require.NoError(t, apitest.Quick(&rec).Restore(apitest.Config(path, filepath.Join(dir, "data"))))
	})
	sizes := map[string][]int64{}
	for _, op := range rec.Ops() {
		sizes[op.Kind] = append(sizes[op.Kind], op.Size>>20)
	}
	require.Equal(t, []int64{1, 2, 4, 8, 8, 8}, sizes["copy"][:6])
	require.Equal(t, []int64{1, 2, 4, 8, 8, 8}, sizes["await"][:6])
	require.LessOrEqual(t, slices.Max(sizes["writeback"]), int64(8))
}
