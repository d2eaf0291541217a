package systemtest_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
)

// changeTime is when the file's attributes, extended ones among them, or links have
// changed last. No call sets it.
func changeTime(t *testing.T, path string) any {
	t.Helper()
	var st unix.Stat_t
	require.NoError(t, unix.Stat(path, &st))
	return st.Ctim
}

// Nothing but reading is asked of the file system: it may be mounted for reading
// alone.
func TestReadingReadOnlyMount(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "db")
	snaptest.History(t).Write(t, path, true)
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Skip("no mount: ", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, 0)) })
	require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	require.ErrorIs(t, os.WriteFile(path, nil, 0o600), unix.EROFS)
	_, err := snapshot.New().Status(path)
	require.NoError(t, err)
	_, err = snapshot.New().Verify(t.Context(), path)
	require.NoError(t, err)
	require.True(t, readAll(t, path))
}

// What Open and the queries map, they unmap.
func TestReaderUnmaps(t *testing.T) {
	skipUnderRace(t)
	sound := snaptest.NewDB().Large(50, 100).Write(t, filepath.Join(t.TempDir(), "db"), true)
	refused := snaptest.NewDB().Large(50, 100).Raw("lease", "short", "").Write(t, filepath.Join(t.TempDir(), "db"), true)
	// Go's heap may take a new piece meanwhile, but not each time.
	const calls, slab = 40, 640 << 10
	grown := make([]int64, 0, 4)
	for range cap(grown) {
		start := snaptest.WritableMemory(t)
		for range calls {
			require.True(t, readAll(t, sound))
			require.False(t, readAll(t, refused))
		}
		if grown = append(grown, snaptest.WritableMemory(t)-start); grown[len(grown)-1] < calls*slab/4 {
			return
		}
	}
	require.Fail(t, "what is mapped grows", "bytes in %d calls each: %d", calls, grown)
}
