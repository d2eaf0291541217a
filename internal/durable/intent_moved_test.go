package durable_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
)

// elsewhere is a target with the WAL directory of l and another data directory.
func (l layout) elsewhere(root string) durable.TargetConfig {
	cfg := l.config(root)
	cfg.Dir, cfg.AllowEmptyDir = filepath.Join(root, "elsewhere", "data"), false
	return cfg
}

// moveAway moves what was published, as a user does who keeps it for later.
func (l layout) moveAway(t *testing.T, root string) {
	t.Helper()
	require.NoError(t, os.Mkdir(filepath.Join(root, "away"), 0o700))
	require.NoError(t, os.Rename(filepath.Join(root, l.dir), filepath.Join(root, "away", "data")))
}

// requireMendedElsewhere calls for another data directory after a kill or a
// power cut. A WAL directory whose data directory is published belongs to that,
// wherever it is now; one that is left of a call that came to nothing makes room.
// With torn the disk may show a rename by half, at both places or at neither:
// then only a call for the same directory can tell.
func (l layout) requireMendedElsewhere(t *testing.T, root string, torn bool) {
	t.Helper()
	staged, err := filepath.Glob(filepath.Join(root, l.dir, ".restore", "tree", "member"))
	require.NoError(t, err)
	beside, err := filepath.Glob(filepath.Join(root, filepath.Dir(l.dir), ".data.restore", "tree", "member"))
	require.NoError(t, err)
	if len(staged)+len(beside) > 0 && l.committed(t, root) {
		require.True(t, torn)
		return
	}
	if !l.committed(t, root) {
		err := publish(wrap(), l.elsewhere(root))
		if torn && err != nil {
			require.ErrorIs(t, err, durable.ErrExists)
			return
		}
		require.NoError(t, err)
		require.Equal(t, db, list(t, root)["elsewhere/data/member/snap/db"])
		return
	}
	l.moveAway(t, root)
	before := list(t, filepath.Join(root, l.wal))
	require.ErrorIs(t, publish(wrap(), l.elsewhere(root)), durable.ErrExists)
	require.Equal(t, before, list(t, filepath.Join(root, l.wal)))
	require.Equal(t, db, list(t, root)["away/data/member/snap/db"])
}

// A killed call may have reached its commit point, and the user may have moved the
// data directory away since.
func TestKilledThenElsewhere(t *testing.T) {
	for _, l := range early() {
		t.Run(l.name, func(t *testing.T) {
			committed := 0
			sweepBy(t, 1, durabletest.KillAt, func(f *durabletest.Faults) {
				root := l.prepare(t)
				_ = publish(wrap(f), l.config(root)) // killed, but for the last time
				if l.committed(t, root) {
					committed++
				}
				l.requireMendedElsewhere(t, root, false)
			})
			require.Greater(t, committed, 3, "kills between the commit and the end")
		})
	}
}

// A call for another data directory, made while what was staged is somewhere else,
// leaves the killed one's to be made again.
func TestKilledMovedAwayAndBack(t *testing.T) {
	for _, l := range early() {
		t.Run(l.name, func(t *testing.T) {
			first, _ := firstBetween(t, l)
			for kill := first; ; kill++ {
				root := publishKilled(t, l, kill)
				if l.committed(t, root) {
					require.Greater(t, kill, first)
					return
				}
				at := filepath.Dir(l.dir) // a volume
				if at == "." {
					at = l.dir
				}
				volume, away := filepath.Join(root, at), filepath.Join(root, "away")
				require.NoError(t, os.Rename(volume, away))
				for range 2 {
					err := publish(wrap(), l.elsewhere(root))
					require.ErrorIs(t, err, durable.ErrExists)
					require.ErrorContains(t, err, "an interrupted call created it for "+volume)
				}
				require.NoError(t, os.Rename(away, volume))
				l.requireMended(t, root)
			}
		})
	}
}

// The same call again finds no data directory, and starts afresh.
func TestCommittedMovedAwayCalledAgain(t *testing.T) {
	l := layouts[1]
	root := killCommitted(t, l)
	l.moveAway(t, root)
	require.NoError(t, publish(wrap(), l.config(root)))
	got := list(t, root)
	for path, content := range l.complete() {
		require.Equal(t, content, got[path], path)
	}
}

// What another call has staged since for the same directory is not taken for
// what the killed one did.
func TestCommittedMovedAwayStagedAgain(t *testing.T) {
	for _, l := range early() {
		t.Run(l.name, func(t *testing.T) {
			root := killCommitted(t, l)
			l.moveAway(t, root)
			if l.into {
				require.NoError(t, os.Mkdir(filepath.Join(root, l.dir), 0o700))
				// As where only what is in a mount point can be moved.
				require.NoError(t, os.Rename(filepath.Join(root, "away/data/.restore"), filepath.Join(root, l.dir, ".restore")))
			}
			cfg := l.config(root)
			cfg.WALDir = ""
			target, err := durable.Open(wrap(), cfg)
			require.NoError(t, err)
			require.NoError(t, fill(wrap(), target))
			require.ErrorIs(t, publish(wrap(), l.elsewhere(root)), durable.ErrExists)
			require.FileExists(t, filepath.Join(root, l.wal, "0.wal"))
			require.NoError(t, target.Cleanup())
		})
	}
}

// What is staged tells that nothing is committed, also where the call that was
// killed had another path for it, and whoever is killed while it mends that.
func TestEarlyWALUnderAnotherPath(t *testing.T) {
	for _, l := range early() {
		t.Run(l.name, func(t *testing.T) {
			first, _ := firstBetween(t, l)
			sweep(t, durabletest.KillAt, func(f *durabletest.Faults) {
				root := publishKilled(t, l, first)
				moved, at := l, filepath.Dir(l.dir) // a volume
				if at == "." {
					at, moved.dir = l.dir, "mnt"
				} else {
					moved.dir = "mnt/" + filepath.Base(l.dir)
				}
				require.NoError(t, os.Rename(filepath.Join(root, at), filepath.Join(root, "mnt")))
				_ = publish(wrap(f), moved.config(root)) // killed, but for the last time
				moved.requireMended(t, root)
			})
		})
	}
}
