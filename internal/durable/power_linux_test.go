package durable_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest/short"
)

var losses = map[string]durabletest.Loss{
	"all":  durabletest.LoseAll,
	"data": durabletest.LoseData,
	"some": durabletest.LoseSome,
}

// cutEverywhere calls check with what is left of root, at the same path, when
// the power is cut before and after every operation that disk has seen.
func cutEverywhere(t *testing.T, disk *durabletest.Disk, root string, check func(t *testing.T, last bool)) {
	t.Helper()
	cutAt(t, disk, root, func(t *testing.T, k int) { check(t, k == disk.Len()-1) })
}

// cutAt is cutEverywhere, and tells the moment.
func cutAt(t *testing.T, disk *durabletest.Disk, root string, check func(t *testing.T, k int)) {
	t.Helper()
	for name, loss := range losses {
		seeds := uint64(1)
		if name == "some" {
			seeds = uint64(short.Or(8, 1))
		}
		for k := range disk.Len() {
			if last := disk.Len() - 1; k%short.Step(1, 4) != 0 && k != last {
				continue
			}
			for seed := range seeds {
				t.Run(fmt.Sprintf("%s/%d after %s/seed %d", name, k, filepath.Base(disk.At(k)), seed), func(t *testing.T) {
					require.NoError(t, os.RemoveAll(root))
					require.NoError(t, os.Mkdir(root, 0o700))
					require.NoError(t, disk.Cut(k, loss, seed, root))
					check(t, k)
				})
			}
		}
	}
}

func TestTargetPowerCut(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			root := l.prepare(t)
			disk, err := durabletest.NewDisk(root)
			require.NoError(t, err)
			require.NoError(t, publish(wrap(disk), l.config(root)))
			cutEverywhere(t, disk, root, func(t *testing.T, last bool) {
				if last {
					require.Equal(t, l.complete(), list(t, root))
				}
				l.requireMended(t, root)
			})
		})
	}
}

// After a power cut, too, the next call may be for another data directory.
func TestTargetPowerCutThenElsewhere(t *testing.T) {
	for _, l := range early() {
		t.Run(l.name, func(t *testing.T) {
			root := l.prepare(t)
			disk, err := durabletest.NewDisk(root)
			require.NoError(t, err)
			require.NoError(t, publish(wrap(disk), l.config(root)))
			commit := 0
			for k := range disk.Len() {
				if strings.HasPrefix(disk.At(k), "publish") {
					commit = k
				}
			}
			cutAt(t, disk, root, func(t *testing.T, k int) {
				// Until both directories of the rename are synced.
				l.requireMendedElsewhere(t, root, k == commit || k == commit+1)
			})
		})
	}
}

// Leftovers of a killed call are taken apart in an order that a power cut may
// interrupt.
func TestTargetPowerCutWhileMending(t *testing.T) {
	for _, l := range early() {
		t.Run(l.name, func(t *testing.T) {
			root := killBetween(t, l)
			disk, err := durabletest.NewDisk(root)
			require.NoError(t, err)
			require.NoError(t, publish(wrap(disk), l.config(root)))
			cutEverywhere(t, disk, root, func(t *testing.T, last bool) {
				if last {
					require.Equal(t, l.complete(), list(t, root))
				}
				l.requireMended(t, root)
			})
		})
	}
}

// The power may also be cut while a call that failed late takes back what it
// published.
func TestTargetPowerCutWhileTakingBack(t *testing.T) {
	for _, l := range early() {
		from, to := lateOps(t, l)
		for k := from; k < to; k++ {
			if !*every && k != from+2 && k != to-1 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", l.name, k), func(t *testing.T) {
				root := l.prepare(t)
				disk, err := durabletest.NewDisk(root)
				require.NoError(t, err)
				err = publish(wrap(durabletest.FailAt(k, syscall.EIO), disk), l.config(root))
				require.ErrorIs(t, err, syscall.EIO)
				cutEverywhere(t, disk, root, func(t *testing.T, last bool) {
					require.False(t, last && l.committed(t, root))
					l.requireMended(t, root)
				})
			})
		}
	}
}

func TestFilePowerCut(t *testing.T) {
	for _, old := range []string{"", "old"} {
		t.Run("old "+old, func(t *testing.T) {
			root := t.TempDir()
			if old != "" {
				require.NoError(t, os.WriteFile(filepath.Join(root, "db"), []byte(old), 0o600))
			}
			disk, err := durabletest.NewDisk(root)
			require.NoError(t, err)
			require.NoError(t, save(wrap(disk), filepath.Join(root, "db"), db))
			cutEverywhere(t, disk, root, func(t *testing.T, last bool) {
				got := list(t, root)
				if last {
					require.Equal(t, db, got["db"])
				}
				require.Contains(t, []string{old, db}, got["db"])
				require.NoError(t, save(wrap(), filepath.Join(root, "db"), "next"))
				require.Equal(t, listing{"db": "next"}, list(t, root))
			})
		})
	}
}
