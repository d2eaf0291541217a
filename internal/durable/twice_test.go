package durable_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
)

// forEachLateFault calls try with the operations of a Commit whose failure
// makes Cleanup take back what is published.
func forEachLateFault(t *testing.T, l layout, try func(k int)) {
	t.Helper()
	ops := 0
	sweep(t, durabletest.KillAt, func(*durabletest.Faults) { ops++ })
	_ = ops
	for k := 0; ; k++ {
		root := l.prepare(t)
		var rec durabletest.Recorder
		if publish(wrap(durabletest.KillAt(k), &rec), l.config(root)) == nil {
			return
		}
		if published(&rec) {
			try(k)
		}
	}
}

// published reports whether the trace of a call holds a publication.
func published(rec *durabletest.Recorder) bool {
	for _, op := range rec.Ops() {
		if op.Kind == "publish" {
			return true
		}
	}
	return false
}

// A call that fails late and is then killed, or fails again, in the middle of
// taking back what it published.
func TestTargetFailsWhileTakingBack(t *testing.T) {
	for _, l := range layouts {
		for name, second := range map[string]func(k int) *durabletest.Faults{
			"killed": durabletest.KillAt,
			"fails":  func(k int) *durabletest.Faults { return durabletest.FailAt(k, syscall.ENOSPC) },
		} {
			t.Run(l.name+"/"+name, func(t *testing.T) {
				forEachLateFault(t, l, func(k int) {
					for j := k + 1; ; j++ {
						root := l.prepare(t)
						f := second(j)
						fsys := wrap(durabletest.FailAt(k, syscall.EIO), shifted{f, k})
						require.Error(t, publish(fsys, l.config(root)))
						fsys.CloseAll()
						l.requireMended(t, root)
						if _, hit := f.Hit(); !hit {
							break
						}
					}
				})
			})
		}
	}
}

// shifted counts the operation that an earlier hook made fail at k as well.
type shifted struct {
	*durabletest.Faults
	k int
}

// TestTargetLockLost: between opening the lock file and locking it, its owner
// ends and another call takes over.
func TestTargetLockLost(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			root := l.prepare(t)
			var winner *durable.Target
			takeOver := hookFunc(func(op durabletest.Op) error {
				if op.Kind == "lock" && winner == nil {
					require.NoError(t, os.Remove(op.Path))
					require.NoError(t, os.Remove(filepath.Dir(op.Path)))
					var err error
					winner, err = durable.Open(wrap(), l.config(root))
					require.NoError(t, err)
				}
				return nil
			})
			_, err := durable.Open(wrap(takeOver), l.config(root))
			require.ErrorIs(t, err, durable.ErrInUse)
			require.NoError(t, fill(wrap(), winner))
			require.NoError(t, winner.Commit())
			require.Equal(t, l.complete(), list(t, root))
		})
	}
}
