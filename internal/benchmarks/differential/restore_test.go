package differential_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"etcd.example/snapshot"
	"github.com/stretchr/testify/require"
	peer "go.etcd.io/etcd/etcdutl/v3/snapshot"
)

// restoreCase is a configuration that both implementations accept.
type restoreCase struct {
	name    string
	members int
	change  func(t *testing.T, cfg *snapshot.RestoreConfig)
}

var restoreCases = []restoreCase{
	{name: "one member", members: 1},
	{name: "three members", members: 3},
	{name: "five members", members: 5},
	{name: "bumped and marked compacted", members: 1, change: bump(1_000_000_000)},
	{name: "bumped by one, three members", members: 3, change: bump(1)},
	{name: "token", members: 3, change: func(_ *testing.T, c *snapshot.RestoreConfig) { c.InitialClusterToken = "other" }},
	{name: "separate WAL directory", members: 1, change: func(t *testing.T, c *snapshot.RestoreConfig) {
		c.OutputWALDir = filepath.Join(t.TempDir(), "deep", "wal")
	}},
	{name: "initial mmap size", members: 1, change: func(_ *testing.T, c *snapshot.RestoreConfig) { c.InitialMmapSize = 256 << 20 }},
	{name: "hash not checked", members: 1, change: func(_ *testing.T, c *snapshot.RestoreConfig) { c.SkipHashCheck = true }},
	{name: "several peer URLs", members: 1, change: func(_ *testing.T, c *snapshot.RestoreConfig) {
		c.PeerURLs = append(c.PeerURLs, "http://127.0.0.1:3380")
		c.InitialCluster += "," + c.Name + "=http://127.0.0.1:3380"
	}},
}

func bump(by uint64) func(*testing.T, *snapshot.RestoreConfig) {
	return func(_ *testing.T, c *snapshot.RestoreConfig) { c.RevisionBump, c.MarkCompacted = by, true }
}

// clusterOf returns the names and the cluster string of n members.
func clusterOf(n int) (names []string, cluster string) {
	for i := range n {
		name := fmt.Sprintf("m%d", i+1)
		names = append(names, name)
		cluster += fmt.Sprintf(",%s=http://127.0.0.1:%d", name, 2380+i)
	}
	return names, cluster[1:]
}

func (rc restoreCase) configs(t *testing.T, path string) []snapshot.RestoreConfig {
	names, cluster := clusterOf(rc.members)
	var cfgs []snapshot.RestoreConfig
	for i, name := range names {
		cfg := snapshot.RestoreConfig{
			SnapshotPath: path, Name: name,
			PeerURLs:            []string{fmt.Sprintf("http://127.0.0.1:%d", 2380+i)},
			InitialCluster:      cluster,
			InitialClusterToken: "etcd-cluster",
		}
		if rc.change != nil {
			rc.change(t, &cfg)
		}
		cfgs = append(cfgs, cfg)
	}
	return cfgs
}

// peerConfig is cfg in etcd's own type, into other directories.
func peerConfig(t *testing.T, cfg snapshot.RestoreConfig) peer.RestoreConfig {
	t.Helper()
	pc := peer.RestoreConfig{
		SnapshotPath: cfg.SnapshotPath, Name: cfg.Name,
		OutputDataDir: filepath.Join(t.TempDir(), "data"),
		PeerURLs:      cfg.PeerURLs, InitialCluster: cfg.InitialCluster, InitialClusterToken: cfg.InitialClusterToken,
		SkipHashCheck: cfg.SkipHashCheck, InitialMmapSize: cfg.InitialMmapSize,
		RevisionBump: cfg.RevisionBump, MarkCompacted: cfg.MarkCompacted,
	}
	if cfg.OutputWALDir != "" {
		pc.OutputWALDir = filepath.Join(t.TempDir(), "wal")
	}
	return pc
}

// requireSameRestore restores with both and requires that nothing differs.
func requireSameRestore(t *testing.T, cfg snapshot.RestoreConfig) {
	t.Helper()
	pc := peerConfig(t, cfg)
	require.NoError(t, peer.NewV3(silent).Restore(pc), "etcd's Restore")
	cfg.OutputDataDir = filepath.Join(t.TempDir(), "data")
	require.NoError(t, snapshot.New().Restore(cfg))

	want, got := dump(t, pc.OutputDataDir, pc.OutputWALDir), dump(t, cfg.OutputDataDir, cfg.OutputWALDir)
	require.NotEmpty(t, want.Buckets)
	require.NotEmpty(t, want.Entries)
	require.NotEmpty(t, want.SnapIndexes)
	require.Equal(t, want, got)

	st := requireSameStatus(t, filepath.Join(cfg.OutputDataDir, "member", "snap", "db"))
	peerStatus, err := snapshot.New().Status(filepath.Join(pc.OutputDataDir, "member", "snap", "db"))
	require.NoError(t, err)
	st.TotalSize, peerStatus.TotalSize = 0, 0 // the number of unused pages after the edits may differ
	require.Equal(t, peerStatus, st)
}

func TestRestoreOfRandomHistories(t *testing.T) {
	for seed := range uint64(12) {
		path := withTrailer(t, randomHistory(1000+seed).write(t))
		rc := restoreCases[seed%uint64(len(restoreCases))]
		t.Run(fmt.Sprintf("seed %d, %s", seed, rc.name), func(t *testing.T) {
			t.Parallel()
			for _, cfg := range rc.configs(t, path) {
				requireSameRestore(t, cfg)
			}
		})
	}
}

func TestRestoreOfSyntheticDatabases(t *testing.T) {
	i, chosen := 0, 0
	for _, content := range slices.Sorted(maps.Keys(synthetic)) {
		build := synthetic[content]
		noKeys := content == "no key bucket" || content == "nothing but meta"
		for _, name := range slices.Sorted(maps.Keys(layouts)) {
			layout := layouts[name]
			// A fifth of the combinations still has every configuration and layout.
			if i++; i%5 != 0 {
				continue
			}
			rc := restoreCases[chosen%len(restoreCases)]
			chosen++
			if noKeys {
				if strings.HasPrefix(name, "fragmented") {
					continue
				}
				rc = restoreCases[1] // a bump ends etcd's process
			}
			t.Run(fmt.Sprintf("%s, %s, %s", content, name, rc.name), func(t *testing.T) {
				path := layout.arrange(build()).Write(t, filepath.Join(t.TempDir(), "db"), layout.trailer)
				cfg := rc.configs(t, path)[0]
				cfg.SkipHashCheck = cfg.SkipHashCheck || !layout.trailer
				requireSameRestore(t, cfg)
			})
		}
	}
}

func TestRestoreWithoutTrailer(t *testing.T) {
	path := randomHistory(1).write(t)
	cfg := restoreCase{members: 1}.configs(t, path)[0]

	require.ErrorContains(t, peer.NewV3(silent).Restore(peerConfig(t, cfg)), "missing hash")
	cfg.OutputDataDir = filepath.Join(t.TempDir(), "data")
	require.ErrorIs(t, snapshot.New().Restore(cfg), snapshot.ErrNoTrailer)
	require.NoDirExists(t, cfg.OutputDataDir)

	cfg.SkipHashCheck = true
	requireSameRestore(t, cfg)
}

// Deliberate differences, each from both sides.
func TestRestoreDeliberateDifferences(t *testing.T) {
	path := withTrailer(t, randomHistory(2).write(t))
	base := restoreCase{members: 1}.configs(t, path)[0]

	t.Run("an existing empty directory has to be allowed", func(t *testing.T) {
		pc := peerConfig(t, base)
		require.NoError(t, os.Mkdir(pc.OutputDataDir, 0o700))
		require.NoError(t, peer.NewV3(silent).Restore(pc))

		cfg := base
		cfg.OutputDataDir = filepath.Join(t.TempDir(), "data")
		require.NoError(t, os.Mkdir(cfg.OutputDataDir, 0o700))
		require.ErrorIs(t, snapshot.New().Restore(cfg), snapshot.ErrExists)
		require.NoDirExists(t, filepath.Join(cfg.OutputDataDir, "member"))

		cfg.AllowEmptyDataDir = true
		require.NoError(t, snapshot.New().Restore(cfg))
		require.Equal(t, dump(t, pc.OutputDataDir, ""), dump(t, cfg.OutputDataDir, ""))
	})

	t.Run("lost+found is nothing", func(t *testing.T) {
		pc := peerConfig(t, base)
		require.NoError(t, os.MkdirAll(filepath.Join(pc.OutputDataDir, "lost+found"), 0o700))
		require.ErrorContains(t, peer.NewV3(silent).Restore(pc), "not empty")

		cfg := base
		cfg.AllowEmptyDataDir = true
		cfg.OutputDataDir = filepath.Join(t.TempDir(), "data")
		require.NoError(t, os.MkdirAll(filepath.Join(cfg.OutputDataDir, "lost+found"), 0o700))
		require.NoError(t, snapshot.New().Restore(cfg))
	})

	for _, tc := range []struct {
		name string
		bump uint64
		mark bool
	}{
		{"a bump alone is not ignored", 5, false},
		{"a mark alone is not ignored", 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := base
			cfg.RevisionBump, cfg.MarkCompacted = tc.bump, tc.mark
			pc, plain := peerConfig(t, cfg), peerConfig(t, base)
			require.NoError(t, peer.NewV3(silent).Restore(pc))
			require.NoError(t, peer.NewV3(silent).Restore(plain))
			require.Equal(t, dump(t, plain.OutputDataDir, ""), dump(t, pc.OutputDataDir, ""), "etcd ignores it")

			cfg.OutputDataDir = filepath.Join(t.TempDir(), "data")
			require.ErrorIs(t, snapshot.New().Restore(cfg), snapshot.ErrConfig)
			require.NoDirExists(t, cfg.OutputDataDir)
		})
	}
}
