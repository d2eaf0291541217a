//go:build linux

package systemtest_test

// A power cut leaves no incomplete target: only what was synced is kept, and the
// next call succeeds. A run cuts at every file operation; with more seeds:
// go test ./internal/systemtest -run TestPowerCut -every

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// losses are what a power cut may take with it of what is not synced.
var losses = []struct {
	name  string
	loss  durabletest.Loss
	seeds uint64
}{
	{"all", durabletest.LoseAll, 1},
	{"data", durabletest.LoseData, 1},
	{"some", durabletest.LoseSome, 3},
}

// The power is cut before the first file operation and after each, and only
// what was synced is left, with some or none of the rest. What bbolt writes is
// seen when its file is synced.
func TestPowerCutAtEveryFileOperation(t *testing.T) {
	booted := &bootedOnce{seen: map[string]bool{}}
	for _, op := range operations(t, 2<<20) {
		t.Run(op.name, func(t *testing.T) {
			t.Parallel()
			absent, complete := op.outcomes(t)
			root := op.root(t)
			disk, err := durabletest.NewDisk(root)
			require.NoError(t, err)
			require.NoError(t, op.run(apitest.Quick(disk), root))

			cuts, seen := 0, map[string]bool{}
			for k := range disk.Len() {
				if k%short.Step(1, 5) != 0 && k != disk.Len()-1 {
					continue
				}
				for _, l := range losses {
					for seed := range l.seeds {
						if seed > 0 && !*every {
							break
						}
						// At the same place: what is found may name paths.
						require.NoError(t, errors.Join(os.RemoveAll(root), os.Mkdir(root, 0o700)))
						require.NoError(t, disk.Cut(k, l.loss, seed, root))
						at := fmt.Sprintf("cut after %q, losing %s, seed %d", disk.At(k), l.name, seed)
						cuts++
						outcome := requireAbsentOrComplete(t, op, root, absent, complete, at)
						if k == disk.Len()-1 {
							require.Equal(t, "complete", outcome, at) // the call has returned
						}
						if op.commit != "" && outcome == "complete" && !seen[outcome] {
							op.boot(t, root, booted)
						}
						op.requireMended(t, root, complete)
						if op.commit != "" && outcome == "absent" && !seen[outcome] {
							op.boot(t, root, booted)
						}
						seen[outcome] = true
					}
				}
			}
			require.Equal(t, map[string]bool{"absent": true, "complete": true}, seen)
			t.Logf("%d power cuts at %d moments", cuts, disk.Len())
		})
	}
}

// requireAbsentOrComplete says which of the two outcomes is below root.
func requireAbsentOrComplete(t *testing.T, op operation, root string, absent, complete listing, at string) string {
	t.Helper()
	now := list(t, root)
	if complete.within(now) {
		return "complete"
	}
	require.False(t, op.committed(t, root), "%s: between absent and complete: %v", at, complete.minus(now))
	require.True(t, absent.within(now), "%s: gone: %v", at, absent.minus(now))
	return "absent"
}

// bootedOnce has the directories that etcd was booted from.
type bootedOnce struct {
	mu   sync.Mutex
	seen map[string]bool
}

// boot starts etcd on a copy of the directories that op has restored, unless
// the same have been booted before. With -short it does not.
func (op operation) boot(t *testing.T, root string, booted *bootedOnce) {
	t.Helper()
	if testing.Short() {
		return
	}
	now := list(t, root)
	booted.mu.Lock() // all have the same peer URL
	defer booted.mu.Unlock()
	key := fmt.Sprint(now)
	if booted.seen[key] {
		return
	}
	booted.seen[key] = true
	boot := snaptest.MemoryDir(t)
	require.NoError(t, os.CopyFS(boot, os.DirFS(root)))
	walDir := ""
	if _, ok := now["log/wal/"]; ok {
		walDir = filepath.Join(boot, "log", "wal")
	}
	dataDir := filepath.Join(boot, filepath.Dir(op.commit))
	e := snaptest.Start(t, snaptest.From(dataDir, walDir), snaptest.With(func(c *snaptest.Config) {
		cfg := apitest.Config("", "")
		c.Name, c.PeerURL, c.InitialCluster = cfg.Name, cfg.PeerURLs[0], cfg.InitialCluster
	}))
	defer e.Stop()
	got, err := e.Client().Get(t.Context(), "large/", clientv3.WithPrefix())
	require.NoError(t, err)
	require.Len(t, got.Kvs, 6)
	_, err = e.Client().Put(t.Context(), "life", "goes on")
	require.NoError(t, err)
}
