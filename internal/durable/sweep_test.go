package durable_test

import (
	"errors"
	"io"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest/short"
)

var faults = map[string]error{
	"EIO":         syscall.EIO,
	"ENOSPC":      syscall.ENOSPC,
	"EINTR":       syscall.EINTR,
	"short write": durabletest.ErrShortWrite,
}

// sweep calls try with a fault at operation 0, 1, 2… until it ends before the
// fault, and returns how many faults there were. With -short it leaves some out.
func sweep(t *testing.T, fault func(k int) *durabletest.Faults, try func(f *durabletest.Faults)) int {
	t.Helper()
	return sweepBy(t, short.Step(1, 5), fault, try)
}

// sweepBy is sweep with operation 0, step, 2*step…
func sweepBy(t *testing.T, step int, fault func(k int) *durabletest.Faults, try func(f *durabletest.Faults)) int {
	t.Helper()
	hits := 0
	for k := 0; ; k += step {
		f := fault(k)
		try(f)
		if _, ok := f.Hit(); ok {
			hits++
		}
		if !f.Reached(k) {
			require.NotZero(t, hits)
			return hits
		}
	}
}

func TestTargetFaults(t *testing.T) {
	for _, l := range layouts {
		for name, errno := range faults {
			if !*every && name != "EIO" && l.wal != "log/wal" {
				continue
			}
			t.Run(l.name+"/"+name, func(t *testing.T) {
				step := short.Step(1, 5)
				if errno == durabletest.ErrShortWrite {
					step = 1 // there are few writes
				}
				n := sweepBy(t, step, func(k int) *durabletest.Faults { return durabletest.FailAt(k, errno) }, func(f *durabletest.Faults) {
					root := l.prepare(t)
					before := list(t, root)
					fsys := wrap(f)
					err := publish(fsys, l.config(root))
					require.Zero(t, fsys.CloseAll(), "files left open")
					op, hit := f.Hit()
					if !hit {
						require.NoError(t, err)
						require.Equal(t, l.complete(), list(t, root))
						return
					}
					if errno == durabletest.ErrShortWrite {
						require.True(t, errors.Is(err, io.ErrShortWrite) || errors.Is(err, errShort), "%v: %v", op, err)
					} else {
						require.ErrorIs(t, err, errno, "%v", op)
					}
					require.Equal(t, before, list(t, root), "%v: %v", op, err)
					require.NoError(t, publish(wrap(), l.config(root)), "%v", op)
					require.Equal(t, l.complete(), list(t, root))
				})
				t.Logf("%d faults", n)
			})
		}
	}
}

// A disk that fails and does not come back leaves what it leaves, but never a
// part of the target.
func TestTargetDiskDies(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			sweep(t, func(k int) *durabletest.Faults { return durabletest.FailFrom(k, syscall.EIO) }, func(f *durabletest.Faults) {
				root := l.prepare(t)
				fsys := wrap(f)
				err := publish(fsys, l.config(root))
				require.Zero(t, fsys.CloseAll(), "files left open")
				if _, hit := f.Hit(); hit {
					require.ErrorIs(t, err, syscall.EIO)
				} else {
					require.NoError(t, err)
				}
				l.requireMended(t, root)
			})
		})
	}
}

func TestTargetKilled(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			sweep(t, durabletest.KillAt, func(f *durabletest.Faults) {
				root := l.prepare(t)
				err := publish(wrap(f), l.config(root))
				if _, hit := f.Hit(); hit {
					require.Error(t, err)
				} else {
					require.NoError(t, err)
					require.Equal(t, l.complete(), list(t, root))
				}
				l.requireMended(t, root)
			})
		})
	}
}

// Whoever cleans up after a killed call may be killed as well.
func TestTargetKilledTwice(t *testing.T) {
	for _, l := range sample() {
		t.Run(l.name, func(t *testing.T) {
			forEachKill(t, l, func(first int) {
				sweep(t, durabletest.KillAt, func(f *durabletest.Faults) {
					root := publishKilled(t, l, first)
					_ = publish(wrap(f), l.config(root)) // may be killed, may find the target
					l.requireMended(t, root)
				})
			})
		})
	}
}

// A call that fails on the leftovers of a killed one leaves them to the next.
func TestTargetFaultsOnLeftovers(t *testing.T) {
	for _, l := range sample() {
		t.Run(l.name, func(t *testing.T) {
			forEachKill(t, l, func(first int) {
				sweep(t, func(k int) *durabletest.Faults { return durabletest.FailAt(k, syscall.EIO) }, func(f *durabletest.Faults) {
					root := publishKilled(t, l, first)
					err := publish(wrap(f), l.config(root))
					if op, hit := f.Hit(); hit {
						require.ErrorIs(t, err, syscall.EIO, "%v", op)
					}
					l.requireMended(t, root)
				})
			})
		})
	}
}

// sample is every layout with -every, otherwise the two that leave most.
func sample() []layout {
	if *every {
		return layouts
	}
	return early()
}

// forEachKill calls try with moments at which a call may be killed: all of them
// with -every, otherwise a few of those that leave most.
func forEachKill(t *testing.T, l layout, try func(first int)) {
	kills := 0
	sweepBy(t, 1, durabletest.KillAt, func(f *durabletest.Faults) { _ = publish(wrap(f), l.config(l.prepare(t))); kills++ })
	for first := range kills {
		// Half way the files are staged; near the end there is an intent.
		if *every || first == kills/2 || first == kills-15 {
			try(first)
		}
	}
}

// publishKilled calls once, killed at operation k, and returns the root.
func publishKilled(t *testing.T, l layout, k int) (root string) {
	root = l.prepare(t)
	_ = publish(wrap(durabletest.KillAt(k)), l.config(root))
	return root
}
