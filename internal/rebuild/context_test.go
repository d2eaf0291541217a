package rebuild_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// restWork cancels at one operation on the data, and adds up the bytes of those
// that begin after it.
type restWork struct {
	cancelAt int
	cancel   context.CancelFunc

	mu    sync.Mutex
	seen  int
	after int64 // bytes
}

func (w *restWork) Before(op durabletest.Op) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains([]string{"copy", "read", "write"}, op.Kind) || op.Size < 64<<10 {
		return nil
	}
	if w.seen > w.cancelAt {
		w.after += op.Size
	}
	if w.seen == w.cancelAt {
		w.cancel()
	}
	w.seen++
	return nil
}

func (*restWork) After(durabletest.Op, error) {}

func TestRestoreWorkAfterTheContextHasEnded(t *testing.T) {
	short.Skip(t, "restores 60 MB six times")
	path := snaptest.NewDB().Large(60_000, 1000).Write(t, filepath.Join(snaptest.MemoryDir(t), "db"), true)
	info, err := os.Stat(path)
	require.NoError(t, err)
	const bound = 16 << 20 // a piece that is copied, and what follows it
	require.Greater(t, info.Size(), int64(3*bound))
	for name, inner := range map[string]durable.FS{
		"kernel copy": durable.OS,
		"plain copy":  &portableDisk{FS: durable.OS, stop: unsupported},
	} {
		t.Run(name, func(t *testing.T) {
			snaptest.NoLeaks(t)
			for _, at := range []int{0, 1, 3} {
				ctx, cancel := context.WithCancel(t.Context())
				dir := snaptest.MemoryDir(t)
				work := &restWork{cancelAt: at, cancel: cancel}
				err := apitest.OnFS(durabletest.Wrap(inner, work), nil).RestoreContext(ctx, apitest.Config(path, filepath.Join(dir, "data")))
				require.ErrorIs(t, err, context.Canceled)
				t.Logf("%d bytes after the context had ended at operation %d", work.after, at)
				require.LessOrEqual(t, work.after, int64(bound))
				require.Empty(t, snaptest.TreeList(t, dir))
			}
		})
	}
}
