package rebuild_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// A disk of 1 TiB has no room for 8, whether they take room now or not.
func TestRestoreNeedsSpace(t *testing.T) {
	dir := t.TempDir()
	path := snaptest.SmallFile(t)
	if err := os.Truncate(path, 1<<43); err != nil {
		t.Skipf("no sparse file of 8 TiB here: %v", err)
	}
	cfg := apitest.Config(path, filepath.Join(dir, "data"))
	cfg.SkipHashCheck = true
	err := apitest.OnFS(spaceIn{FS: durable.OS, free: 1 << 40}, nil).Restore(cfg)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Regexp(t, `needs 87\d+ bytes of space, 1099511627776 are free`, err.Error())
	require.NoDirExists(t, cfg.OutputDataDir)
}

// spaceIn says how much space is left where a path contains a word, of which the
// empty one is in all.
type spaceIn struct {
	durable.FS
	word string
	free int64
	err  error
}

func (d spaceIn) FreeSpace(name string) (int64, error) {
	if strings.Contains(name, d.word) {
		return d.free, d.err
	}
	return d.FS.FreeSpace(name)
}

// The space below the data directory and below the WAL is looked at, each for
// itself; a file system that does not report it is no reason not to restore.
func TestRestoreSpaceOfEach(t *testing.T) {
	path := snaptest.SmallFile(t)
	for _, word := range []string{"data", "wal"} {
		for _, tt := range []struct {
			name string
			disk spaceIn
			want error
		}{
			{"full", spaceIn{free: 1 << 20}, syscall.ENOSPC},
			{"unknown", spaceIn{err: errors.ErrUnsupported}, nil},
			{"failing", spaceIn{err: syscall.EIO}, syscall.EIO},
		} {
			t.Run(word+"/"+tt.name, func(t *testing.T) {
				dir := t.TempDir()
				disk := tt.disk
				disk.FS, disk.word = durable.OS, filepath.Join(dir, "."+word)
				cfg := apitest.Config(path, filepath.Join(dir, "data"))
				cfg.OutputWALDir = filepath.Join(dir, "wal")
				err := apitest.OnFS(disk, nil).Restore(cfg)
				require.ErrorIs(t, err, tt.want)
				if tt.want == nil {
					require.DirExists(t, cfg.OutputWALDir)
					return
				}
				if tt.want == syscall.ENOSPC {
					require.ErrorContains(t, err, filepath.Join(dir, word)+" needs ")
				}
				require.Empty(t, snaptest.TreeList(t, dir))
			})
		}
	}
}
