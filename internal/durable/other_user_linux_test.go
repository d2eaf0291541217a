package durable_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
)

// If others can write to the directory above the target, they could create the
// staging directory first, and change what is staged in it.
func TestStagingOfAnotherUser(t *testing.T) {
	for name, c := range map[string]struct {
		parent, staging fs.FileMode
		owner           int
		refused         bool
	}{
		"own leftovers":             {0o777, 0o700, os.Geteuid(), false},
		"own, others can write":     {0o777, 0o777, os.Geteuid(), true},
		"own, the group can write":  {0o770, 0o770, os.Geteuid(), true},
		"others cannot reach it":    {0o755, 0o777, os.Geteuid(), false},
		"another's":                 {0o777, 0o700, otherUser, true},
		"another's, sticky":         {0o777 | fs.ModeSticky, 0o700, otherUser, true},
		"another's as NFS shows it": {0o755, 0o700, otherUser, false},
	} {
		t.Run(name, func(t *testing.T) {
			if c.owner != os.Geteuid() && os.Geteuid() != 0 {
				t.Skip("only root can give a directory away")
			}
			root := t.TempDir()
			staging := filepath.Join(root, ".data.restore")
			require.NoError(t, os.Mkdir(staging, 0o700))
			require.NoError(t, os.Chmod(staging, c.staging))
			require.NoError(t, os.Chown(staging, c.owner, -1))
			require.NoError(t, os.Chmod(root, c.parent))
			err := publish(durable.OS, durable.TargetConfig{Dir: filepath.Join(root, "data")})
			if !c.refused {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, "another user can write to it")
			require.Equal(t, listing{".data.restore/": ""}, list(t, root))
		})
	}
}

// File names are bytes, which need not be UTF-8.
func TestEarlyWALWithAnyName(t *testing.T) {
	for _, l := range []layout{
		{name: "new", dir: "srv/d\xff", wal: "log/w\xff"},
		{name: "existing", dir: "d\xff", into: true, wal: "log/w\xff"},
	} {
		root := killBetween(t, l)
		require.NoError(t, publish(wrap(), l.config(root)))
		require.Equal(t, l.complete(), list(t, root))
	}
}

// After the commit the directories are the user's, whatever the call left.
func TestCommittedWithAnyName(t *testing.T) {
	l := layout{dir: "srv/d\xff", wal: "log/wal"}
	root := killBetween(t, l)
	require.NoError(t, os.MkdirAll(filepath.Join(l.config(root).Dir, "member"), 0o700))
	other := l.config(root)
	other.Dir = filepath.Join(root, "other")
	before := list(t, other.WALDir)
	require.ErrorIs(t, publish(wrap(), other), durable.ErrExists)
	require.Equal(t, before, list(t, other.WALDir))
}
