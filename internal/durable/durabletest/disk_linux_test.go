package durabletest_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
)

// left is what a power cut at the end of what disk has seen leaves.
func left(t *testing.T, disk *durabletest.Disk, loss durabletest.Loss) map[string]string {
	t.Helper()
	dst := t.TempDir()
	require.NoError(t, disk.Cut(disk.Len()-1, loss, 0, dst))
	files := map[string]string{}
	for _, name := range names(t, dst)[1:] {
		data, err := os.ReadFile(dst + name)
		if err == nil {
			files[name] = string(data)
		} else {
			files[name] = "directory"
		}
	}
	return files
}

func TestPowerCut(t *testing.T) {
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	require.NoError(t, os.WriteFile(at("old"), []byte("old\x00\x00"), 0o600))
	disk, err := durabletest.NewDisk(root)
	require.NoError(t, err)
	fsys := durabletest.Wrap(durable.OS, disk).NoSync()
	type files = map[string]string
	check := func(all, data files) {
		t.Helper()
		require.Equal(t, all, left(t, disk, durabletest.LoseAll))
		require.Equal(t, data, left(t, disk, durabletest.LoseData))
	}
	check(files{"/old": "old\x00\x00"}, files{"/old": "old\x00\x00"})

	require.NoError(t, fsys.Mkdir(at("d"), 0o700))
	f, err := fsys.OpenFile(at("d/f"), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	_, err = f.Write([]byte("one"))
	require.NoError(t, err)
	check(files{"/old": "old\x00\x00"}, files{"/old": "old\x00\x00", "/d": "directory", "/d/f": ""})

	require.NoError(t, f.Sync())
	check(files{"/old": "old\x00\x00"}, files{"/old": "old\x00\x00", "/d": "directory", "/d/f": "one"})

	_, err = f.Write([]byte("two"))
	require.NoError(t, err)
	require.NoError(t, fsys.SyncDir(root))
	check(files{"/old": "old\x00\x00", "/d": "directory"}, files{"/old": "old\x00\x00", "/d": "directory", "/d/f": "one"})

	require.NoError(t, fsys.SyncDir(at("d")))
	require.NoError(t, fsys.Rename(at("d"), at("e")))
	require.NoError(t, fsys.Remove(at("old")))
	check(files{"/old": "old\x00\x00", "/d": "directory", "/d/f": "one"}, files{"/e": "directory", "/e/f": "one"})

	require.NoError(t, fsys.SyncDir(root))
	check(files{"/e": "directory", "/e/f": "one"}, files{"/e": "directory", "/e/f": "one"})
	require.NoError(t, f.Close())

	// Every moment can still be asked for.
	dst := t.TempDir()
	require.NoError(t, disk.Cut(0, durabletest.LoseData, 0, dst))
	require.Equal(t, []string{"", "/old"}, names(t, dst))
	require.Equal(t, "remove "+at("old"), disk.At(disk.Len()-2))
}

// What other code does is seen when it is synced through the FS.
func TestPowerCutSeesOtherWriters(t *testing.T) {
	root := t.TempDir()
	disk, err := durabletest.NewDisk(root)
	require.NoError(t, err)
	fsys := durabletest.Wrap(durable.OS, disk).NoSync()
	path := filepath.Join(root, "f")
	require.NoError(t, os.WriteFile(path, []byte("theirs"), 0o600))
	f, err := fsys.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	require.NoError(t, f.Close())
	require.NoError(t, fsys.SyncDir(root))
	require.Equal(t, map[string]string{"/f": "theirs"}, left(t, disk, durabletest.LoseAll))
}

func TestPowerCutLosesSome(t *testing.T) {
	root := t.TempDir()
	disk, err := durabletest.NewDisk(root)
	require.NoError(t, err)
	fsys := durabletest.Wrap(durable.OS, disk).NoSync()
	require.NoError(t, fsys.Mkdir(filepath.Join(root, "d"), 0o700))
	seen := map[int]bool{}
	for seed := range uint64(32) {
		dst := t.TempDir()
		require.NoError(t, disk.Cut(1, durabletest.LoseSome, seed, dst))
		seen[len(names(t, dst))] = true
	}
	require.Equal(t, map[int]bool{1: true, 2: true}, seen)
}

func TestDiskErrors(t *testing.T) {
	_, err := durabletest.NewDisk(filepath.Join(t.TempDir(), "missing"))
	require.True(t, errors.Is(err, os.ErrNotExist))

	root := filepath.Join(t.TempDir(), "gone")
	require.NoError(t, os.Mkdir(root, 0o700))
	disk, err := durabletest.NewDisk(root)
	require.NoError(t, err)
	require.NoError(t, durabletest.Wrap(durable.OS, disk).Remove(root))
	require.ErrorIs(t, disk.Cut(0, durabletest.LoseAll, 0, t.TempDir()), os.ErrNotExist)

	root = t.TempDir()
	require.NoError(t, os.Symlink("x", filepath.Join(root, "link")))
	disk, err = durabletest.NewDisk(root)
	require.NoError(t, err)
	require.ErrorContains(t, disk.Cut(0, durabletest.LoseAll, 0, t.TempDir()), "cannot be rebuilt")
}
