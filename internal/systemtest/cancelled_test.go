package systemtest_test

// A context that ends during a call ends the call: it returns the error of the
// context, writes nothing more and leaves nothing. In every run.

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// sentAll is a server that sends a whole snapshot, and a channel that is closed
// when it has: all is then in the memory of the client, or on the way to it.
func sentAll(t *testing.T, size, chunk int) (*snaptest.FakeServer, <-chan struct{}) {
	db := snaptest.Opaque(size)
	sent := make(chan struct{})
	done := sync.OnceFunc(func() { close(sent) })
	return snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
		c.Chunk = chunk
		err := c.SendSnapshot(db)
		done()
		return err
	}), sent
}

// Once the context has ended nothing more is written, whatever has been received
// by then, within a message as well as between two.
func TestSaveToWritesNothingAfterTheEnd(t *testing.T) {
	const size = 10<<20 + 4096
	for name, chunk := range map[string]int{"messages of 32 KiB": 32 << 10, "one large message": size} {
		t.Run(name, func(t *testing.T) {
			for nth := 1; nth <= short.Or(10, 2); nth++ {
				snaptest.NoLeaks(t)
				s, sent := sentAll(t, size, chunk)
				ctx, cancel := context.WithCancelCause(t.Context())
				writes := 0
				saved, err := snapshot.New().SaveTo(ctx, s.ClientConfig(), apitest.WriterFunc(func(p []byte) (int, error) {
					if writes++; writes == nth {
						<-sent
						cancel(apitest.ErrCaller)
					}
					return len(p), nil
				}))
				require.ErrorIs(t, err, context.Canceled)
				require.ErrorIs(t, err, apitest.ErrCaller)
				apitest.RequireNoOther(t, err, context.Canceled)
				require.Zero(t, saved)
				require.Equal(t, nth, writes)
			}
		})
	}
}

// The end of the context is the error, whatever else is wrong with what comes
// after it.
func TestSaveToEndedBeforeAFault(t *testing.T) {
	db := snaptest.Opaque(2 << 20)
	for name, script := range map[string]snaptest.Script{
		"ends early":  func(c *snaptest.SnapshotCall) error { return c.SendPart(db[:3<<19], len(db), 0) },
		"bad trailer": func(c *snaptest.SnapshotCall) error { return errors.Join(c.SendDB(db), c.Send(make([]byte, 32), 0)) },
		"too much":    func(c *snaptest.SnapshotCall) error { return errors.Join(c.SendSnapshot(db), c.Send(db, 0)) },
	} {
		t.Run(name, func(t *testing.T) {
			for range short.Or(20, 3) { // gRPC may hand over what it has, or not
				snaptest.NoLeaks(t)
				sent := make(chan struct{})
				s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
					defer close(sent)
					c.Chunk = 2 << 20
					return script(c)
				})
				ctx, cancel := context.WithCancel(t.Context())
				_, err := snapshot.New().SaveTo(ctx, s.ClientConfig(), apitest.WriterFunc(func(p []byte) (int, error) {
					<-sent
					cancel()
					return len(p), nil
				}))
				require.ErrorIs(t, err, context.Canceled)
				apitest.RequireNoOther(t, err, context.Canceled)
			}
		})
	}
}

// A report comes before the next write, and the last one before the file is
// published. With SaveTo the last one comes when all is written.
func TestSaveEndedByReport(t *testing.T) {
	const size = 4<<20 + 4096
	for name, chunk := range map[string]int{"messages of 32 KiB": 32 << 10, "one large message": size} {
		t.Run(name, func(t *testing.T) {
			apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
				for nth, last := 1, false; !last; nth++ {
					snaptest.NoLeaks(t)
					s, sent := sentAll(t, size, chunk)
					ctx, cancel := context.WithCancel(t.Context())
					reports := 0
					m := snapshot.New(snapshot.WithProgress(func(p snapshot.Progress) {
						if reports++; reports == nth {
							if last = p.Done == p.Total; p.Done > 0 {
								<-sent
							}
							cancel()
						}
					}))
					got, err := fetch(ctx, t, m, s.ClientConfig())
					cancel()
					require.Equal(t, nth, reports)
					if last && err == nil {
						require.Len(t, got, size+32)
						require.Contains(t, t.Name(), "SaveTo")
						continue
					}
					require.ErrorIs(t, err, context.Canceled)
					apitest.RequireNoOther(t, err, context.Canceled)
				}
			})
		})
	}
}

func TestSaveEndedBeforeTheCall(t *testing.T) {
	for name, end := range map[string]func(context.Context) (context.Context, context.CancelFunc){
		"cancelled": func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			cancel(apitest.ErrCaller)
			return ctx, func() {}
		},
		"too late": func(ctx context.Context) (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
				snaptest.NoLeaks(t)
				s := snaptest.Serve(t, nil)
				ctx, cancel := end(t.Context())
				defer cancel()
				_, err := fetch(ctx, t, snapshot.New(), s.ClientConfig())
				require.ErrorIs(t, err, ctx.Err())
				require.ErrorIs(t, err, context.Cause(ctx))
				apitest.RequireNoOther(t, err, ctx.Err())
				require.Empty(t, s.Tokens())
			})
		})
	}
	var ops writesAfter
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ops.end()
	err := apitest.Quick(&ops).Save(ctx, snaptest.Serve(t, nil).ClientConfig(), filepath.Join(t.TempDir(), "db"))
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, ops.seen)
}

// writesAfter notes what is created or written after the end.
type writesAfter struct {
	mu    sync.Mutex
	ended bool
	seen  []string
}

func (w *writesAfter) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
}

func (w *writesAfter) Before(op durabletest.Op) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch op.Kind {
	case "create", "mkdir", "link", "rename", "publish", "write", "truncate", "allocate", "copy", "sync", "syncdir":
		if w.ended {
			w.seen = append(w.seen, op.Kind+" "+op.Path)
		}
	}
	return nil
}

func (*writesAfter) After(durabletest.Op, error) {}

// requireEnds runs an operation whose context ends at each of its reports in
// turn. It ends with the error of the context, and writes nothing after that,
// unless the report said that all is done.
func requireEnds(t *testing.T, call func(context.Context, apitest.Manager, string) error) {
	for nth, done := 1, false; !done; nth++ {
		snaptest.NoLeaks(t)
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		var ops writesAfter
		var last snapshot.Progress
		reports := 0
		m := apitest.OnFS(durabletest.Wrap(durable.OS, &ops).NoSync(), func(p snapshot.Progress) {
			if reports++; reports == nth {
				last = p
				ops.end()
				cancel()
			}
		})
		err := call(ctx, m, dir)
		cancel()
		if reports < nth { // how many there are depends on who reads what
			require.NoError(t, err)
			break
		}
		if last.Done == last.Total && err == nil {
			done = true
			require.Contains(t, []snapshot.Phase{snapshot.PhaseRead, snapshot.PhasePublish}, last.Phase)
			continue
		}
		require.ErrorIs(t, err, context.Canceled, "%+v", last)
		require.Empty(t, ops.seen, "%+v", last)
		require.Empty(t, snaptest.TreeList(t, dir))
	}
}

func TestEndedByReport(t *testing.T) {
	path := snaptest.NewDB().Large(3000, 1000).Write(t, filepath.Join(t.TempDir(), "db"), true)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	for name, call := range map[string]func(ctx context.Context, m apitest.Manager, dir string) error{
		"Status": func(ctx context.Context, m apitest.Manager, _ string) error {
			_, err := m.StatusContext(ctx, path)
			return err
		},
		"Verify": func(ctx context.Context, m apitest.Manager, _ string) error {
			_, err := m.Verify(ctx, path)
			return err
		},
		"Restore": func(ctx context.Context, m apitest.Manager, dir string) error {
			return m.RestoreContext(ctx, apitest.Config(path, filepath.Join(dir, "data")))
		},
		"Restore without a digest": func(ctx context.Context, m apitest.Manager, dir string) error {
			cfg := apitest.Config(path, filepath.Join(dir, "data"))
			cfg.SkipHashCheck = true
			return m.RestoreContext(ctx, cfg)
		},
		"RestoreFrom": func(ctx context.Context, m apitest.Manager, dir string) error {
			return m.RestoreFrom(ctx, bytes.NewReader(content), apitest.Config("", filepath.Join(dir, "data")))
		},
	} {
		t.Run(name, func(t *testing.T) { requireEnds(t, call) })
	}
}

// What a Read brings while the context ends is not written, the last bytes
// included.
func TestRestoreFromEndedByReader(t *testing.T) {
	content, err := os.ReadFile(snaptest.NewDB().Large(3000, 1000).Write(t, filepath.Join(t.TempDir(), "db"), true))
	require.NoError(t, err)
	for nth, ended := 1, true; ended; nth++ {
		snaptest.NoLeaks(t)
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		var ops writesAfter
		reads := 0
		r := bytes.NewReader(content)
		err := apitest.Quick(&ops).RestoreFrom(ctx, readerFunc(func(p []byte) (int, error) {
			if reads++; reads == nth {
				ops.end()
				cancel()
			}
			return r.Read(p)
		}), apitest.Config("", filepath.Join(dir, "data")))
		cancel()
		if ended = reads == nth; ended {
			require.ErrorIs(t, err, context.Canceled)
			require.Empty(t, ops.seen)
			require.Empty(t, snaptest.TreeList(t, dir))
		} else {
			require.NoError(t, err)
			require.Greater(t, nth, 4, "reads")
		}
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
