package systemtest_test

// When a call returns, nothing of it runs on, stays open, mapped or locked,
// however it ends. A run tries a sample of the moments at which it may end; all with
// go test ./internal/systemtest -run TestAllIsOver -every

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
	"weak"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// overCall is a call on the snapshot below root.
type overCall struct {
	name string
	run  func(ctx context.Context, m apitest.Manager, root string) error
	// stream says that the call reads no file, but what content has.
	stream bool
	// refused says that the configuration is wrong.
	refused bool
}

func overCalls(t *testing.T, content func() []byte) []overCall {
	server := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
		b := content()
		c.Chunk = 64 << 10
		if len(b) < 4096 {
			return c.SendDB(b)
		}
		return errors.Join(c.SendPart(b[:4096], len(b)-32, 0), c.Send(b[4096:], 0))
	})
	file := func(root string) string { return filepath.Join(root, snapshotName) }
	restore := func(change func(cfg *snapshot.RestoreConfig, root string)) func(context.Context, apitest.Manager, string) error {
		return func(ctx context.Context, m apitest.Manager, root string) error {
			cfg := apitest.Config(file(root), filepath.Join(root, "srv", "data"))
			change(&cfg, root)
			return m.RestoreContext(ctx, cfg)
		}
	}
	return []overCall{
		{name: "status", run: func(ctx context.Context, m apitest.Manager, root string) error {
			_, err := m.StatusContext(ctx, file(root))
			return err
		}},
		{name: "verify", run: func(ctx context.Context, m apitest.Manager, root string) error {
			_, err := m.Verify(ctx, file(root))
			return err
		}},
		{name: "restore", run: restore(func(*snapshot.RestoreConfig, string) {})},
		{name: "restore, unchecked", run: restore(func(cfg *snapshot.RestoreConfig, root string) { cfg.SkipHashCheck = true })},
		{name: "restore, separate WAL", run: restore(func(cfg *snapshot.RestoreConfig, root string) {
			cfg.OutputWALDir = filepath.Join(root, "log", "wal")
		})},
		{name: "restore, other URLs", refused: true, run: restore(func(cfg *snapshot.RestoreConfig, root string) {
			cfg.PeerURLs = []string{"http://localhost:2380"}
		})},
		{name: "restore from", stream: true, run: func(ctx context.Context, m apitest.Manager, root string) error {
			return m.RestoreFrom(ctx, bytes.NewReader(content()), apitest.Config("", filepath.Join(root, "srv", "data")))
		}},
		{name: "save", stream: true, run: func(ctx context.Context, m apitest.Manager, root string) error {
			return m.Save(ctx, server.ClientConfig(), filepath.Join(root, "saved.db"))
		}},
		{name: "save to", stream: true, run: func(ctx context.Context, m apitest.Manager, root string) error {
			_, err := m.SaveTo(ctx, server.ClientConfig(), io.Discard)
			return err
		}},
	}
}

// inputs are a sound snapshot and some that are refused, each at another point.
func inputs(t *testing.T) map[string][]byte {
	sound := snaptest.NewDB().Large(4000, 1000).Bytes(t, true)
	change := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(sound)) }
	return map[string][]byte{
		"sound":      sound,
		"no trailer": sound[:len(sound)-32],
		"checksum":   change(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }),
		"no meta":    change(func(b []byte) []byte { clear(b[:8192]); return b }),
		"damaged":    snaptest.WithTrailer(change(func(b []byte) []byte { clear(b[len(b)/2 : len(b)/2+8192]); return b[:len(b)-32] })),
		"cut":        snaptest.WithTrailer(sound[:len(sound)/8192*4096]),
		"empty":      {},
	}
}

// ending is how a call is made to end.
type ending struct {
	name   string
	report func(ctx *heldContext, late *lateOps) // at one of the reports
}

var endings = []ending{
	{name: "by itself"},
	{name: "report panics", report: func(_ *heldContext, late *lateOps) {
		late.holdBack()
		panic(errReport)
	}},
	{name: "cancelled", report: func(ctx *heldContext, late *lateOps) {
		late.holdBack()
		ctx.end()
	}},
}

func TestAllIsOverWhenACallReturns(t *testing.T) {
	snaptest.NoLeaks(t)
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // or it would close what was forgotten
	all := inputs(t)
	var content []byte
	calls := overCalls(t, func() []byte { return content })
	for input, b := range all {
		if testing.Short() && input != "sound" && input != "damaged" {
			continue
		}
		content = b
		for _, call := range calls {
			for _, end := range endings {
				t.Run(fmt.Sprintf("%s/%s/%s", call.name, input, end.name), func(t *testing.T) {
					step := 1
					if input != "sound" && !*every {
						step = 3
					}
					step = short.Step(step, 10)
					for at := 0; ; at += step {
						reports := callOnce(t, call, b, input == "sound" && !call.refused, end, at)
						if end.report == nil || reports <= at {
							return
						}
					}
				})
			}
			runtime.GC()
		}
	}
}

// callOnce makes the call, has it end at one of its reports, and fails unless
// everything is over then. It returns how many reports there were.
func callOnce(t *testing.T, call overCall, content []byte, sound bool, end ending, at int) (reports int) {
	t.Helper()
	root := snaptest.MemoryDir(t)
	if !call.stream {
		require.NoError(t, os.WriteFile(filepath.Join(root, snapshotName), content, 0o600))
	}
	ctx, late := newHeldContext(), newLateOps()
	closeCopies := func() {}
	defer func() { closeCopies() }()
	fsys := durabletest.Wrap(apitest.SparseFS{FS: durable.OS}, late) // which syncs
	m := apitest.OnFS(fsys, func(p snapshot.Progress) {
		closeCopies()
		closeCopies = copyDescriptors(t, root)
		reports++
		if end.report != nil && reports == at+1 {
			end.report(ctx, late)
		}
	})
	stacks, before := snaptest.Goroutines(), lookHeld(t, root)
	err, panicked := recoverReport(func() error { return call.run(ctx, m, root) })
	close(late.over)
	busy := atWork(stacks)
	require.Empty(t, busy, "at work after report %d", at)
	requireUnlocked(t, root, "after report %d", at)
	closeCopies()
	closeCopies = func() {}
	before.requireSame(t, root, "after report", at)
	require.Zero(t, ctx.held(), "contexts that wait for the caller's, after report %d", at)
	late.mu.Lock()
	require.Empty(t, late.late, "after the call, report %d", at)
	late.mu.Unlock()
	require.Equal(t, end.report != nil && end.name == "report panics" && reports > at, panicked)
	if ctx.Err() != nil && err != nil && sound {
		require.ErrorIs(t, err, context.Canceled, "report %d", at)
		require.NotErrorIs(t, err, snapshot.ErrChecksum, "report %d: of bytes that were not all read", at)
	}
	return reports
}

// recoverReport says whether f panicked with errReport.
func recoverReport(f func() error) (err error, panicked bool) {
	defer func() {
		if v := recover(); v != nil {
			if v != errReport {
				panic(v)
			}
			panicked = true
		}
	}()
	return f(), false
}

// What a Status maps it unmaps.
func TestStatusUnmaps(t *testing.T) {
	path := snaptest.NewDB().Large(50, 100).Write(t, filepath.Join(t.TempDir(), "db"), true)
	for name, call := range map[string]func() error{
		"status": func() error { _, err := snapshot.New().Status(path); return err },
		"verify": func() error { _, err := snapshot.New().Verify(t.Context(), path); return err },
		"report panics": func() error {
			m := snapshot.New(snapshot.WithProgress(func(p snapshot.Progress) {
				if p.Done > 0 {
					panic(errReport)
				}
			}))
			err, _ := recoverReport(func() error { _, err := m.Status(path); return err })
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			// Go's heap may take a new piece meanwhile, but not each time.
			const calls, slab = 100, 640 << 10
			grown := make([]int64, 0, 4)
			for range cap(grown) {
				start := snaptest.WritableMemory(t)
				for i := range calls {
					if require.NoError(t, call()); i%10 == 9 {
						runtime.GC()
					}
				}
				if grown = append(grown, snaptest.WritableMemory(t)-start); grown[len(grown)-1] < calls*slab/4 {
					return
				}
			}
			require.Fail(t, "what is mapped grows", "bytes in %d calls each: %d", calls, grown)
		})
	}
}

// When a Save has returned, its stream has ended, and no timer keeps what the
// caller gave it.
func TestSaveLetsGoOfItsContext(t *testing.T) {
	snaptest.NoLeaks(t)
	type owned [1 << 10]byte
	type key struct{}
	db := snaptest.Opaque(1 << 20)
	for name, serve := range map[string]func(c *snaptest.SnapshotCall) error{
		"saved":    func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(db) },
		"checksum": func(c *snaptest.SnapshotCall) error { return errors.Join(c.SendDB(db), c.Send(make([]byte, 32), 0)) },
		"too much": func(c *snaptest.SnapshotCall) error { return errors.Join(c.SendDB(db), c.Send(db, 0)) },
		"cut":      func(c *snaptest.SnapshotCall) error { return c.SendPart(db[:4096], len(db), 0) },
		"failed": func(c *snaptest.SnapshotCall) error {
			return errors.Join(c.SendPart(db[:4096], len(db), 0), apitest.ErrFull)
		},
		"nothing": func(*snaptest.SnapshotCall) error { return apitest.ErrFull },
	} {
		t.Run(name, func(t *testing.T) {
			s := snaptest.Serve(t, serve)
			mine := weak.Pointer[owned]{}
			func() {
				value := &owned{}
				mine = weak.Make(value)
				var stream context.Context
				cfg := s.ClientConfig()
				cfg.DialOptions = append(cfg.DialOptions, grpc.WithChainStreamInterceptor(func(
					ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption,
				) (grpc.ClientStream, error) {
					stream = ctx
					return next(ctx, desc, cc, method, opts...)
				}))
				m := snapshot.New(snapshot.WithStallTimeout(time.Hour))
				ctx := context.WithValue(t.Context(), key{}, value)
				err := m.Save(ctx, cfg, filepath.Join(t.TempDir(), "db"))
				require.Equal(t, name == "saved", err == nil, "%v", err)
				require.NotNil(t, stream)
				require.Error(t, stream.Err(), "the stream goes on")
			}()
			require.Eventually(t, func() bool {
				runtime.GC()
				return mine.Value() == nil
			}, 30*time.Second, 10*time.Millisecond, "kept until the stall timeout")
		})
	}
}

// A context may have a cause of its own. The error is still that of a context.
func TestCauseOfTheCaller(t *testing.T) {
	content := snaptest.NewDB().Large(4000, 1000).Bytes(t, true)
	errCause := errors.New("the operator went home")
	for _, call := range overCalls(t, func() []byte { return content }) {
		if call.refused {
			continue
		}
		t.Run(call.name, func(t *testing.T) {
			failed := 0
			for at := 0; ; at += short.Step(1, 7) {
				root := snaptest.MemoryDir(t)
				require.NoError(t, os.WriteFile(filepath.Join(root, snapshotName), content, 0o600))
				before := list(t, root)
				ctx, cancel := context.WithCancelCause(t.Context())
				reports := 0
				m := apitest.OnFS(apitest.QuickFS(), func(snapshot.Progress) {
					if reports++; reports == at+1 {
						cancel(errCause)
					}
				})
				err := call.run(ctx, m, root)
				cancel(nil)
				if reports <= at {
					require.NoError(t, err)
					break
				}
				if err != nil {
					failed++
					require.ErrorIs(t, err, context.Canceled, "report %d", at)
					require.NotErrorIs(t, err, snapshot.ErrChecksum)
					requireListing(t, before, root)
				}
			}
			require.NotZero(t, failed)
		})
	}
}

// A call that fails and cannot clean up says both.
func TestFailedCleanUpIsReported(t *testing.T) {
	content := smallSnapshot(t)
	for _, op := range append(restores(content), saves(snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
		return c.SendSnapshot(snaptest.Opaque(1 << 20))
	}).ClientConfig())...) {
		t.Run(op.name, func(t *testing.T) {
			fail := kindFaults{"write": apitest.ErrFull, "remove": errReport}
			err := op.run(apitest.OnFS(apitest.QuickFS(fail), nil), op.root(t))
			require.ErrorIs(t, err, apitest.ErrFull)
			require.ErrorIs(t, err, errReport)
			require.ErrorContains(t, err, "clean up")
		})
	}
}

// kindFaults makes every operation of some kinds fail.
type kindFaults map[string]error

func (f kindFaults) Before(op durabletest.Op) error { return f[op.Kind] }

func (kindFaults) After(durabletest.Op, error) {}
