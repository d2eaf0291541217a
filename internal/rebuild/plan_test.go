package rebuild_test

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/client/pkg/v3/types"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/bootstrap"
	"etcd.example/snapshot/internal/rebuild"
	"etcd.example/snapshot/internal/snaptest"
)

// planConfig returns a configuration that is in order, with all paths in dir.
func planConfig(dir string) rebuild.Config {
	return rebuild.Config{
		SnapshotPath:        filepath.Join(dir, "snap.db"),
		Name:                "m1",
		OutputDataDir:       filepath.Join(dir, "m1.etcd"),
		PeerURLs:            []string{"http://10.0.0.1:2380"},
		InitialCluster:      "m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380",
		InitialClusterToken: "tok",
	}
}

func TestResolveDefaults(t *testing.T) {
	dir := t.TempDir()
	cfg := planConfig(dir)
	p, err := rebuild.Resolve(t.Context(), cfg, false)
	require.NoError(t, err)
	require.Equal(t, cfg.SnapshotPath, p.SnapshotPath)
	require.Equal(t, cfg.OutputDataDir, p.DataDir)
	require.Equal(t, filepath.Join(cfg.OutputDataDir, "member", "wal"), p.WALDir)
	require.Equal(t, "wal", p.WALName)
	require.False(t, p.SeparateWAL())
	members, err := types.NewURLsMap(cfg.InitialCluster)
	require.NoError(t, err)
	cluster, err := bootstrap.New("m1", "tok", members)
	require.NoError(t, err)
	require.Equal(t, cluster, p.Cluster)
	require.Zero(t, p.Changes)
	require.False(t, p.SkipHashCheck)
	require.False(t, p.AllowEmptyDataDir)
}

func TestResolveOptions(t *testing.T) {
	cfg := planConfig(t.TempDir())
	cfg.SnapshotPath = ""
	cfg.SkipHashCheck, cfg.AllowEmptyDataDir, cfg.DropAlarms = true, true, true
	cfg.InitialMmapSize = 10 << 20
	cfg.RevisionBump, cfg.MarkCompacted = math.MaxInt64, true
	p, err := rebuild.Resolve(t.Context(), cfg, true)
	require.NoError(t, err)
	require.Empty(t, p.SnapshotPath)
	require.Equal(t, bootstrap.Changes{RevisionBump: math.MaxInt64, DropAlarms: true}, p.Changes)
	require.True(t, p.SkipHashCheck)
	require.True(t, p.AllowEmptyDataDir)
}

// A relative path is relative to the working directory of the call, whatever
// becomes of it later.
func TestResolveRelativePaths(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	wd, err := os.Getwd()
	require.NoError(t, err)
	cfg := planConfig("")
	cfg.OutputDataDir, cfg.OutputWALDir = "", "x/../wal"
	p, err := rebuild.Resolve(t.Context(), cfg, false)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(wd, "snap.db"), p.SnapshotPath)
	require.Equal(t, filepath.Join(wd, "m1.etcd"), p.DataDir)
	require.Equal(t, filepath.Join(wd, "wal"), p.WALDir)
	require.True(t, p.SeparateWAL())
	require.Empty(t, snaptest.TreeList(t, dir))
}

func TestResolveWALDir(t *testing.T) {
	for _, tt := range []struct{ dir, wantDir, wantName string }{
		{"wal", "wal", ""},
		{"m1.etcd-wal", "m1.etcd-wal", ""}, // a prefix of the name, not of the path
		{"m1.etcd/member/wal", "m1.etcd/member/wal", "wal"},
		{"m1.etcd//member/./wal/", "m1.etcd/member/wal", "wal"},
		{"m1.etcd/member/log", "m1.etcd/member/log", "log"},
		{"m1.etcd/../m2.etcd/member/wal", "m2.etcd/member/wal", ""},
	} {
		t.Run(tt.dir, func(t *testing.T) {
			dir := t.TempDir()
			cfg := planConfig(dir)
			cfg.OutputWALDir = dir + "/" + tt.dir
			p, err := rebuild.Resolve(t.Context(), cfg, false)
			require.NoError(t, err)
			require.Equal(t, filepath.Join(dir, tt.wantDir), p.WALDir)
			require.Equal(t, tt.wantName, p.WALName)
			require.Equal(t, tt.wantName == "", p.SeparateWAL())
		})
	}
}

func TestResolveConfigErrors(t *testing.T) {
	type config = rebuild.Config
	for _, tt := range []struct {
		title  string
		change func(c *config, dir string)
		want   string
	}{
		{"no snapshot", func(c *config, _ string) { c.SnapshotPath = "" }, "SnapshotPath is empty"},

		{"not UTF-8", func(c *config, _ string) { c.Name, c.InitialCluster = "m\xff", "m\xff=http://127.0.0.1:2380" }, "is not UTF-8"},
		{"no name", func(c *config, _ string) { c.Name = "" }, "Name is empty"},
		{"name not in cluster", func(c *config, _ string) { c.Name = "m3" }, `Name "m3" is not in InitialCluster "m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380"`},
		{"no cluster", func(c *config, _ string) { c.InitialCluster = "" }, `InitialCluster is "": it names no member`},
		{"nothing but commas", func(c *config, _ string) { c.InitialCluster = ",," }, `InitialCluster is ",,": it names no member`},
		{"member without URL", func(c *config, _ string) { c.InitialCluster = "m1" }, `InitialCluster "m1": URL scheme must be`},
		{"member without name", func(c *config, _ string) { c.InitialCluster += ",=http://h:1" }, `=http://h:1" has a member without a name`},
		{"malformed URL in cluster", func(c *config, _ string) { c.InitialCluster = "m1=http://a b:1" }, `InitialCluster "m1=http://a b:1": parse`},
		{"URL without port in cluster", func(c *config, _ string) { c.InitialCluster = "m1=http://h" }, `does not have the form "host:port": http://h`},
		{"same URL in two members", func(c *config, _ string) { c.InitialCluster = "m1=http://h:1,m2=http://h:1" }, `InitialCluster "m1=http://h:1,m2=http://h:1" has the URL "http://h:1" twice`},
		{"same URL twice in a member", func(c *config, _ string) { c.InitialCluster = "m1=http://h:1,m1=http://h:1" }, `has the URL "http://h:1" twice`},
		{"same member id", func(c *config, _ string) { c.InitialCluster = "m1=unix://1,m1=unix://2,m2=unix://1unix://2" }, `: members "m1" and "m2" have the same id`},

		{"no peer URLs", func(c *config, _ string) { c.PeerURLs = nil }, `PeerURLs []: no valid URLs given`},
		{"malformed peer URL", func(c *config, _ string) { c.PeerURLs = []string{"10.0.0.1:2380"} }, `PeerURLs ["10.0.0.1:2380"]: parse`},
		{"peer URL with a path", func(c *config, _ string) { c.PeerURLs[0] += "/x" }, `URL must not contain a path: http://10.0.0.1:2380/x`},
		{"other peer URL", func(c *config, _ string) { c.PeerURLs[0] = "http://10.0.0.2:2380" }, `PeerURLs ["http://10.0.0.2:2380"] are not those of InitialCluster for "m1", ["http://10.0.0.1:2380"]`},
		{"other scheme", func(c *config, _ string) { c.PeerURLs[0] = "https://10.0.0.1:2380" }, `are not those of InitialCluster for "m1"`},
		{"one peer URL too many", func(c *config, _ string) { c.PeerURLs = append(c.PeerURLs, "http://10.0.0.2:2380") }, `are not those of InitialCluster for "m1"`},

		{"bump without mark", func(c *config, _ string) { c.RevisionBump = 7 }, "RevisionBump is 7 without MarkCompacted"},
		{"mark without bump", func(c *config, _ string) { c.MarkCompacted = true }, "MarkCompacted is set without RevisionBump"},
		{"bump too large", func(c *config, _ string) { c.RevisionBump, c.MarkCompacted = math.MaxInt64+1, true }, "RevisionBump 9223372036854775808 is more than the largest revision 9223372036854775807"},
		{"mapping too large", func(c *config, _ string) { c.InitialMmapSize = math.MaxUint64 }, "InitialMmapSize 18446744073709551615 is more than the largest mapping of"},
		{"mapping a little too large", func(c *config, _ string) { c.InitialMmapSize = 1 << 48 }, "InitialMmapSize 281474976710656 is more than the largest mapping of"},

		{"no default data directory", func(c *config, _ string) {
			c.OutputDataDir, c.Name, c.InitialCluster = "", "../m1", "../m1=http://10.0.0.1:2380"
		}, `OutputDataDir is empty, and no default can be made from Name "../m1"`},
		{"WAL directory is the data directory", func(c *config, dir string) { c.OutputWALDir = dir + "/x/../m1.etcd" }, "must not be the data directory itself"},
		{"WAL directory is member", func(c *config, dir string) { c.OutputWALDir = dir + "/m1.etcd/member" }, "must be outside of the data directory"},
		{"WAL directory is member/snap", func(c *config, dir string) { c.OutputWALDir = dir + "/m1.etcd/member/snap" }, "must be outside of the data directory"},
		{"WAL directory is member/Snap", func(c *config, dir string) { c.OutputWALDir = dir + "/m1.etcd/member/Snap" }, "must be outside of the data directory"},
		{"WAL directory is in member/snap", func(c *config, dir string) { c.OutputWALDir = dir + "/m1.etcd/member/snap/wal" }, "must be outside of the data directory"},
		{"WAL directory is deep in member", func(c *config, dir string) { c.OutputWALDir = dir + "/m1.etcd/member/a/b" }, "must be outside of the data directory"},
		{"WAL directory is beside member", func(c *config, dir string) { c.OutputWALDir = dir + "/m1.etcd/wal" }, `or directly below its "member" and not "snap"`},
		{"WAL directory contains the data directory", func(c *config, dir string) { c.OutputWALDir = dir }, "must not contain the data directory"},
		{"snapshot is the data directory", func(c *config, dir string) { c.SnapshotPath = dir + "/m1.etcd" }, "must be outside of the data directory"},
		{"snapshot in the data directory", func(c *config, dir string) { c.SnapshotPath = dir + "/m1.etcd/member/snap/db" }, "must be outside of the data directory"},
		{"snapshot in the WAL directory", func(c *config, dir string) { c.OutputWALDir, c.SnapshotPath = dir+"/w", dir+"/w/s" }, "must be outside of OutputWALDir"},
	} {
		t.Run(tt.title, func(t *testing.T) {
			dir := t.TempDir()
			cfg := planConfig(dir)
			tt.change(&cfg, dir)
			before := snaptest.TreeList(t, dir)
			p, err := rebuild.Resolve(t.Context(), cfg, false)
			require.ErrorIs(t, err, snapshot.ErrConfig)
			require.ErrorContains(t, err, tt.want)
			require.Nil(t, p)
			require.Equal(t, before, snaptest.TreeList(t, dir))
		})
	}
}

func TestResolveFromReaderWantsNoPath(t *testing.T) {
	p, err := rebuild.Resolve(t.Context(), planConfig(t.TempDir()), true)
	require.ErrorIs(t, err, snapshot.ErrConfig)
	require.ErrorContains(t, err, "snap.db\", but the snapshot comes from a reader")
	require.Nil(t, p)
}

// What is inside of what is a question of directories, not of how they are
// spelled.
func TestResolveFollowsLinks(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("making a symbolic link needs a privilege on Windows")
	}
	setup := func(t *testing.T) (dir string, cfg rebuild.Config) {
		dir = t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, "real"), 0o700))
		require.NoError(t, os.Symlink("real", filepath.Join(dir, "link")))
		cfg = planConfig(dir)
		cfg.OutputDataDir = filepath.Join(dir, "real", "m1.etcd")
		return dir, cfg
	}
	t.Run("WAL directory is the data directory", func(t *testing.T) {
		dir, cfg := setup(t)
		cfg.OutputWALDir = filepath.Join(dir, "link", "m1.etcd")
		_, err := rebuild.Resolve(t.Context(), cfg, false)
		require.ErrorIs(t, err, snapshot.ErrConfig)
		require.ErrorContains(t, err, "must not be the data directory itself")
	})
	t.Run("snapshot in the data directory", func(t *testing.T) {
		dir, cfg := setup(t)
		cfg.OutputDataDir = filepath.Join(dir, "link")
		cfg.SnapshotPath = filepath.Join(dir, "real", "lost+found", "snap.db")
		_, err := rebuild.Resolve(t.Context(), cfg, false)
		require.ErrorIs(t, err, snapshot.ErrConfig)
		require.ErrorContains(t, err, "must be outside of the data directory")
	})
	t.Run("the default WAL directory by another name", func(t *testing.T) {
		dir, cfg := setup(t)
		cfg.OutputWALDir = filepath.Join(dir, "link", "m1.etcd", "member", "wal")
		p, err := rebuild.Resolve(t.Context(), cfg, false)
		require.NoError(t, err)
		require.Equal(t, "wal", p.WALName)
		require.Equal(t, filepath.Join(cfg.OutputDataDir, "member", "wal"), p.WALDir)
	})
	t.Run("the plan keeps the given path", func(t *testing.T) {
		dir, cfg := setup(t)
		cfg.OutputDataDir = filepath.Join(dir, "link", "m1.etcd")
		p, err := rebuild.Resolve(t.Context(), cfg, false)
		require.NoError(t, err)
		require.Equal(t, cfg.OutputDataDir, p.DataDir)
	})
}

// A path that cannot be looked at is no contradiction in the configuration; its
// error keeps its identity.
func TestResolvePathErrors(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a path through a file does not exist on Windows")
	}
	for name, set := range map[string]func(*rebuild.Config, string){
		"OutputDataDir": func(c *rebuild.Config, path string) { c.OutputDataDir = path },
		"OutputWALDir":  func(c *rebuild.Config, path string) { c.OutputWALDir = path },
		"SnapshotPath":  func(c *rebuild.Config, path string) { c.SnapshotPath = path },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "file")
			require.NoError(t, os.WriteFile(file, nil, 0o600))
			cfg := planConfig(dir)
			set(&cfg, filepath.Join(file, "a", "b"))
			p, err := rebuild.Resolve(t.Context(), cfg, false)
			require.ErrorIs(t, err, syscall.ENOTDIR)
			require.NotErrorIs(t, err, snapshot.ErrConfig)
			require.ErrorContains(t, err, name+` "`+file)
			require.Nil(t, p)
		})
	}
}

func TestResolveWithoutWorkingDirectory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux lets the working directory be removed")
	}
	dir := filepath.Join(t.TempDir(), "gone")
	require.NoError(t, os.Mkdir(dir, 0o700))
	t.Chdir(dir)
	require.NoError(t, os.Remove(dir))
	_, err := rebuild.Resolve(t.Context(), planConfig(""), false)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, `OutputDataDir "m1.etcd": `)
}

func TestSpaceNeeded(t *testing.T) {
	const size, segment = 1 << 30, 64_000_000
	cfg := planConfig(t.TempDir())
	p, err := rebuild.Resolve(t.Context(), cfg, false)
	require.NoError(t, err)
	data, wal := p.SpaceNeeded(size)
	require.Greater(t, data, int64(size+segment))
	require.Less(t, data, int64(size+2*segment))
	require.Zero(t, wal)

	cfg.OutputWALDir = cfg.OutputDataDir + "-wal"
	p, err = rebuild.Resolve(t.Context(), cfg, false)
	require.NoError(t, err)
	separate, wal := p.SpaceNeeded(size)
	require.Equal(t, data, separate+segment)
	require.EqualValues(t, segment, wal)
}
