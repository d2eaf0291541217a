package durable_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
)

// bindfs is a directory that shows what is in another one, with options.
func bindfs(t *testing.T, options ...string) (dir string) {
	t.Helper()
	t.Setenv("TMPDIR", diskDir)
	dir = filepath.Join(t.TempDir(), "shown")
	require.NoError(t, os.Mkdir(dir, 0o755))
	durabletest.MountBindfs(t, *every, t.TempDir(), dir, options...)
	return dir
}

var bindfsOptions = map[string][]string{
	"no modes":           {"-p", "0777", "--chmod-ignore"},
	"no modes, no chmod": {"-p", "0777", "--chmod-deny"},
	"no owners":          {"-u", "1234", "-g", "1234"},
	"neither":            {"-p", "0777", "--chmod-ignore", "-u", "1234", "-g", "1234", "--chown-ignore", "--chgrp-ignore"},
}

// A call on a real file system without modes is killed, and made again.
func TestTargetOnBindfs(t *testing.T) {
	for name, options := range bindfsOptions {
		t.Run(name, func(t *testing.T) {
			shown := bindfs(t, options...)
			for _, l := range layouts {
				t.Run(l.name, func(t *testing.T) {
					root := filepath.Join(shown, goldenName.Replace(l.name))
					cfg := l.config(root)
					mode := "new"
					require.NoError(t, os.Mkdir(root, 0o777))
					if l.into {
						require.NoError(t, os.MkdirAll(filepath.Join(cfg.Dir, "lost+found"), 0o777))
						mode = "into"
					}
					kill := startChild(t, "target", cfg.Dir, cfg.WALDir, mode)
					running := list(t, root)
					require.ErrorIs(t, publish(durable.OS, cfg), durable.ErrInUse)
					require.Equal(t, running, list(t, root), "a running call was disturbed")
					kill()
					require.NoError(t, publish(durable.OS, cfg))
					require.Equal(t, l.complete(), list(t, root))
					require.ErrorIs(t, publish(durable.OS, cfg), durable.ErrExists)
					require.Equal(t, l.complete(), list(t, root))
				})
			}
		})
	}
}

func TestFileOnBindfs(t *testing.T) {
	for name, options := range bindfsOptions {
		t.Run(name, func(t *testing.T) {
			root := bindfs(t, options...)
			path := filepath.Join(root, "db")
			kill := startChild(t, "file", path)
			require.NoError(t, save(durable.OS, path, "new"))
			require.Len(t, list(t, root), 2, "the temporary of a running call was removed")
			kill()
			require.NoError(t, save(durable.OS, path, "newer"))
			require.Equal(t, listing{"db": "newer"}, list(t, root))
		})
	}
}

// Whoever can mount may show modes and owners as he likes.
func TestStagingMounted(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.Chmod(root, 0o777|os.ModeSticky))
	staging := filepath.Join(root, ".data.restore")
	require.NoError(t, os.Mkdir(staging, 0o700))
	durabletest.MountBindfs(t, *every, t.TempDir(), staging, "-p", "0777", "--chmod-ignore")
	err := publish(durable.OS, durable.TargetConfig{Dir: filepath.Join(root, "data")})
	require.ErrorContains(t, err, "another user can write to it")
	require.Equal(t, listing{".data.restore/": ""}, list(t, root))
}
