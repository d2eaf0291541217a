package rebuild_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// portableDisk is one on which the kernel stops copying after some calls.
type portableDisk struct {
	durable.FS
	calls int
	stop  func() error
}

func (d *portableDisk) CopyRange(dst durable.File, dstOff int64, src durable.File, srcOff, n int64) (int64, error) {
	if d.calls == 0 {
		return 0, d.stop()
	}
	d.calls--
	return d.FS.CopyRange(dst, dstOff, src, srcOff, n)
}

func unsupported() error { return errors.ErrUnsupported }

// Where the kernel cannot copy, or stops doing so, the result is the same.
func TestRestoreWithoutKernelCopy(t *testing.T) {
	path := snaptest.NewDB().Large(20_000, 1000).Write(t, filepath.Join(t.TempDir(), "db"), true)
	for name, disk := range map[string]*portableDisk{
		"cannot":         {stop: unsupported},
		"stops":          {stop: unsupported, calls: 1},
		"says no reason": {stop: func() error { return nil }, calls: 1},
	} {
		t.Run(name, func(t *testing.T) {
			disk.FS = durable.OS
			snaptest.NoLeaks(t)
			dir := filepath.Join(t.TempDir(), "data")
			require.NoError(t, apitest.OnFS(disk, nil).Restore(apitest.Config(path, dir)))
			apitest.RequireSameDirectory(t, path, dir)
		})
	}
}

// Every write of such a copy fails.
func TestRestoreWithoutKernelCopyFails(t *testing.T) {
	path := snaptest.NewDB().Large(3000, 1000).Write(t, filepath.Join(t.TempDir(), "db"), true)
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC, durabletest.ErrShortWrite} {
		t.Run(fault.Error(), func(t *testing.T) {
			snaptest.NoLeaks(t)
			apitest.Sweep(t, 0, 1, func(k int) *durabletest.Faults { return durabletest.FailAt(k, fault) }, func(f *durabletest.Faults) {
				dir := t.TempDir()
				fsys := durabletest.Wrap(&portableDisk{FS: durable.OS, stop: unsupported}, apitest.WritesOnly{Faults: f}).NoSync()
				err := apitest.OnFS(fsys, nil).Restore(apitest.Config(path, filepath.Join(dir, "data")))
				require.Zero(t, fsys.CloseAll(), "files left open")
				if at, hit := f.Hit(); hit {
					apitest.RequireCause(t, err, fault, at)
					require.Empty(t, snaptest.TreeList(t, dir))
					return
				}
				require.NoError(t, err)
			})
		})
	}
}

// A snapshot that shrinks while it is copied.
func TestRestoreOfShrinkingFile(t *testing.T) {
	const rest = 10 << 20
	for name, calls := range map[string]int{"kernel copy": 1, "plain copy": 0} {
		t.Run(name, func(t *testing.T) {
			snaptest.NoLeaks(t)
			path := snaptest.NewDB().Large(20_000, 1000).Write(t, filepath.Join(t.TempDir(), "db"), true)
			disk := &portableDisk{FS: durable.OS, calls: calls, stop: func() error {
				require.NoError(t, os.Truncate(path, rest))
				return errors.ErrUnsupported
			}}
			dir := t.TempDir()
			err := apitest.OnFS(disk, nil).Restore(apitest.Config(path, filepath.Join(dir, "data")))
			require.ErrorIs(t, err, snapshot.ErrTruncated)
			require.ErrorContains(t, err, "copy at byte")
			require.Empty(t, snaptest.TreeList(t, dir))
		})
	}
}
