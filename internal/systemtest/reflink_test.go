//go:build linux

package systemtest_test

// A restored database shares its blocks with the snapshot on XFS and btrfs. In
// every run that may mount them: go test ./internal/systemtest -run TestReflink

import (
	"encoding/binary"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// Where the file system can share blocks between files, a restored database
// shares all but what the edit changes with the snapshot.
func TestReflink(t *testing.T) {
	if !withMounts(t) {
		return
	}
	for name, mkfs := range map[string][]string{
		"xfs":   {"mkfs.xfs", "-q", "-m", "reflink=1"},
		"btrfs": {"mkfs.btrfs", "-q"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			mountLoop(t, name, mkfs, root)
			path := snaptest.NewDB().Large(20_000, 1500).Write(t, filepath.Join(root, snapshotName), true)
			want, err := snapshot.New().Verify(t.Context(), path)
			require.NoError(t, err)
			cfg := apitest.Config(path, filepath.Join(root, "data"))
			require.NoError(t, snapshot.New().Restore(cfg))

			db := filepath.Join(cfg.OutputDataDir, "member", "snap", "db")
			shared := sharedBytes(t, db)
			t.Logf("%d of %d bytes shared with the snapshot", shared, want.TotalSize)
			require.Greater(t, shared, want.TotalSize*9/10)
			got, err := snapshot.New().Status(db)
			require.NoError(t, err)
			require.Equal(t, want.Revision, got.Revision)
			require.Equal(t, want.TotalKey, got.TotalKey)
		})
	}
}

// mountLoop makes a file system in a file and mounts it at dir.
func mountLoop(t *testing.T, kind string, mkfs []string, dir string) {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 512<<20))
	for _, cmd := range [][]string{
		append(mkfs, image),
		{"mount", "-t", kind, "-o", "loop", image, dir},
	} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Skipf("no %s here: %s: %v: %s", kind, cmd[0], err, out)
		}
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// sharedBytes is how many bytes of a file lie in blocks that other files have
// as well, as ioctl_fiemap(2) tells.
func sharedBytes(t *testing.T, path string) (shared int64) {
	t.Helper()
	const (
		fiemap         = 0xC020660B // FS_IOC_FIEMAP
		headerSize     = 32
		extentSize     = 56
		extents        = 1024
		flagSync       = 1
		extentIsLast   = 0x1
		extentIsShared = 0x2000
	)
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	b := make([]byte, headerSize+extents*extentSize)
	order := binary.NativeEndian
	order.PutUint64(b[8:], math.MaxUint64) // all of the file
	order.PutUint32(b[16:], flagSync)
	order.PutUint32(b[24:], extents)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fiemap, uintptr(unsafe.Pointer(&b[0])))
	require.Zero(t, errno)
	n := int(order.Uint32(b[20:]))
	require.Positive(t, n)
	for i := range n {
		e := b[headerSize+i*extentSize:]
		if order.Uint32(e[40:])&extentIsShared != 0 {
			shared += int64(order.Uint64(e[16:]))
		}
	}
	last := b[headerSize+(n-1)*extentSize:]
	require.NotZero(t, order.Uint32(last[40:])&extentIsLast, "more than %d extents", n)
	return shared
}
