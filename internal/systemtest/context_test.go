package systemtest_test

// A context that has ended before a call is the error of every method, and
// nothing is read, reported or created. In every run.

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// recording notes the operations on the file system.
type recording struct{ ops []durabletest.Op }

func (r *recording) Before(op durabletest.Op) error {
	r.ops = append(r.ops, op)
	return nil
}

func (*recording) After(durabletest.Op, error) {}

// A context that has ended before the call is the answer of every method,
// whatever else is wrong. Nothing is read, reported or created.
func TestContextEndedBeforeTheCall(t *testing.T) {
	path := snaptest.SmallFile(t)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	missing := filepath.Join(t.TempDir(), "missing")
	for name, call := range map[string]func(t *testing.T, ctx context.Context, m apitest.Manager, dir string) error{
		"StatusContext": func(t *testing.T, ctx context.Context, m apitest.Manager, _ string) error {
			st, err := m.StatusContext(ctx, path)
			require.Zero(t, st)
			return err
		},
		"StatusContext, no file": func(_ *testing.T, ctx context.Context, m apitest.Manager, _ string) error {
			_, err := m.StatusContext(ctx, missing)
			return err
		},
		"Verify": func(t *testing.T, ctx context.Context, m apitest.Manager, _ string) error {
			st, err := m.Verify(ctx, path)
			require.Zero(t, st)
			return err
		},
		"Verify, no file": func(_ *testing.T, ctx context.Context, m apitest.Manager, _ string) error {
			_, err := m.Verify(ctx, missing)
			return err
		},
		"RestoreContext": func(_ *testing.T, ctx context.Context, m apitest.Manager, dir string) error {
			return m.RestoreContext(ctx, apitest.Config(path, filepath.Join(dir, "data")))
		},
		"RestoreContext, nothing configured": func(_ *testing.T, ctx context.Context, m apitest.Manager, _ string) error {
			return m.RestoreContext(ctx, snapshot.RestoreConfig{})
		},
		"RestoreFrom": func(t *testing.T, ctx context.Context, m apitest.Manager, dir string) error {
			r := bytes.NewReader(content)
			err := m.RestoreFrom(ctx, r, apitest.Config("", filepath.Join(dir, "data")))
			require.Equal(t, len(content), r.Len(), "nothing was read")
			return err
		},
		"RestoreFrom, nothing configured": func(_ *testing.T, ctx context.Context, m apitest.Manager, _ string) error {
			return m.RestoreFrom(ctx, bytes.NewReader(content), snapshot.RestoreConfig{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			snaptest.NoLeaks(t)
			cancelled, cancel := context.WithCancel(t.Context())
			cancel()
			late, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
			defer cancel()
			for want, ctx := range map[error]context.Context{context.Canceled: cancelled, context.DeadlineExceeded: late} {
				dir := t.TempDir()
				var r recording
				m := apitest.OnFS(durabletest.Wrap(durable.OS, &r), func(p snapshot.Progress) {
					t.Errorf("report %v", p)
				})
				err := call(t, ctx, m, dir)
				require.ErrorIs(t, err, want)
				for _, other := range []error{fs.ErrNotExist, snapshot.ErrConfig} {
					require.NotErrorIs(t, err, other)
				}
				var e *snapshot.Error
				require.ErrorAs(t, err, &e)
				require.Empty(t, r.ops)
				require.Empty(t, snaptest.TreeList(t, dir))
			}
		})
	}
}
