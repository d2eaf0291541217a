package systemtest_test

// No damaged file makes Status or Restore crash or hang, and what Restore accepts
// passes bbolt's checker. A run tries 2,000 files; any number with
// go test ./internal/systemtest -run TestStatusOfDamagedFiles -damaged 1000000 -timeout 0

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
)

var damaged = flag.Int("damaged", 2000, "number of damaged files that Status is tried on; a Reader is on half as many")

// damageBases are snapshots, to be damaged.
func damageBases(tb testing.TB) [][]byte {
	return [][]byte{
		snaptest.History(tb).Bytes(tb, true),
		snaptest.NewDB().Put("a", "b").PageSize(1024).Bytes(tb, true),
		snaptest.History(tb).PageSize(1024).Fragment().WithFreelist(true).Bytes(tb, true),
		snaptest.NewDB().Put("big", strings.Repeat("x", 100_000)).NestedBucket(map[string]string{"k": "v"}, "lease", "inner").Bytes(tb, false),
	}
}

// Damaged snapshots never crash the caller and never hang it; what is accepted
// reads the same a second time, and what a restore makes of it is sound.
func TestStatusOfDamagedFiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(99, 1))
	bases := damageBases(t)
	n, path := short.Or(*damaged, 200), filepath.Join(snaptest.MemoryDir(t), "db")
	m, accepted := snapshot.New(), 0
	for i := range n {
		content, desc := snaptest.Mutate(rng, append([]byte(nil), bases[i%len(bases)]...))
		require.NoError(t, os.WriteFile(path, content, 0o600))
		st, err := m.Status(path)
		if err == nil {
			accepted++
			again, err := m.Status(path)
			require.NoError(t, err)
			require.Equal(t, st, again, desc)
			restoreDamaged(t, path, desc)
			continue
		}
		require.ErrorIs(t, err, snapshot.ErrCorrupt, desc)
		require.Zero(t, st)
	}
	t.Logf("%d of %d damaged files were refused", n-accepted, n)
	require.Greater(t, n-accepted, n/2)
}

func restoreDamaged(t *testing.T, path, desc string) {
	t.Helper()
	dir := snaptest.MemoryDir(t)
	cfg := apitest.Config(path, filepath.Join(dir, "data"))
	cfg.SkipHashCheck, cfg.RevisionBump, cfg.MarkCompacted, cfg.DropAlarms = true, 10, true, true
	if err := apitest.Quick().Restore(cfg); err != nil {
		require.ErrorIs(t, err, snapshot.ErrCorrupt, desc)
		require.Empty(t, snaptest.TreeList(t, dir), desc)
		return
	}
	restored := filepath.Join(cfg.OutputDataDir, "member", "snap", "db")
	st, err := snapshot.New().Status(restored)
	require.NoError(t, err, desc)
	db, err := bolt.Open(restored, 0o600, &bolt.Options{ReadOnly: true})
	require.NoError(t, err, desc)
	require.NoError(t, db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		require.Equal(t, 1, tx.Bucket([]byte("members")).Stats().KeyN, desc)
		return nil
	}), desc)
	require.NoError(t, db.Close())
	require.GreaterOrEqual(t, st.Revision, int64(10))
	require.NoError(t, os.RemoveAll(dir))
}
