//go:build linux

package systemtest_test

// A disk that fills up, or has no inodes left, is an error and leaves nothing. In
// every run that may mount a tmpfs; each number of free pages with
// go test ./internal/systemtest -run 'TestFullDisk|TestNoInodes' -every

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// inNamespace in the environment says that mounts are seen by this test alone.
const inNamespace = "SNAPSHOT_TEST_MOUNTS"

// withMounts runs the test that calls it once more, in a process that may mount
// file systems, and returns true in that process.
func withMounts(t *testing.T) bool {
	t.Helper()
	short.Skip(t, "mounts file systems")
	if os.Getenv(inNamespace) != "" {
		err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		if err == nil {
			dir := t.TempDir()
			if err = unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err == nil {
				err = unix.Unmount(dir, 0)
			}
		}
		if err != nil {
			t.Skipf("not run: mounting is not permitted: %v", err)
		}
		return true
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	var denied []error
	for _, flags := range []uintptr{syscall.CLONE_NEWNS, syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER} {
		cmd := exec.Command(exe, "-test.run=^"+t.Name()+"$", "-test.v", fmt.Sprintf("-every=%t", *every))
		cmd.Env = append(os.Environ(), inNamespace+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		if flags&syscall.CLONE_NEWUSER != 0 {
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
		}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			denied = append(denied, err)
			continue
		}
		err := cmd.Wait()
		t.Log(out.String())
		if err == nil && strings.Contains(out.String(), "--- SKIP: "+t.Name()) {
			t.Skip("not run: mounting is not permitted")
		}
		require.NoError(t, err)
		return false
	}
	t.Skipf("not run: a mount namespace is not permitted: %v", denied)
	return false
}

// mount makes a file system in memory at dir, and returns what removes it.
func mount(t *testing.T, dir, options string) (unmount func()) {
	t.Helper()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, options))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // where a test fails halfway
	return func() { require.NoError(t, unix.Unmount(dir, 0)) }
}

func free(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(dir, &st))
	return int64(st.Bavail) * int64(st.Bsize)
}

// fill takes all room of a disk but for leave bytes.
func fill(path string, leave int64) (err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &st); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return unix.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*int64(st.Bsize)-leave)
}

// fullDisk is an operation on a disk that fills up.
type fullDisk struct {
	operation
	walDisk bool   // the WAL directory is on a disk of its own
	fills   string // the directory below the root whose disk fills up
}

const (
	diskSize = 88 << 20 // little more than a restore wants to be free
	page     = 4096
)

func (d fullDisk) disks(t *testing.T) (root string, unmount func()) {
	t.Helper()
	root = t.TempDir()
	size := fmt.Sprintf("size=%d", diskSize)
	unmount = mount(t, root, size)
	d.prepare(t, root)
	if d.walDisk {
		unmountRoot := unmount
		wal := filepath.Join(root, "log")
		require.NoError(t, os.Mkdir(wal, 0o700))
		unmountWAL := mount(t, wal, size)
		unmount = func() { unmountWAL(); unmountRoot() }
	}
	return root, unmount
}

// try makes the call on a new disk that fills up, but for leave bytes, when the
// first byte is due. It reports whether the call failed.
func (d fullDisk) try(t *testing.T, leave int64, complete listing) bool {
	t.Helper()
	root, unmount := d.disks(t)
	defer unmount()
	absent := list(t, root)
	eater := filepath.Join(root, d.fills, "eater")
	var once sync.Once
	m := snapshot.New(snapshot.WithProgress(func(snapshot.Progress) {
		once.Do(func() { assert.NoError(t, fill(eater, leave)) })
	}))
	err := d.run(m, root)
	require.NoError(t, os.Remove(eater))
	if err == nil {
		requireListing(t, complete, root)
		return false
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	requireListing(t, absent, root, leave, err)
	require.NoError(t, d.run(snapshot.New(), root))
	requireListing(t, complete, root)
	return true
}

// A disk fills up after it was found to have room enough: at the first page
// that is written, at a later one, in the WAL, and with the last pages.
func TestFullDisk(t *testing.T) {
	if !withMounts(t) {
		return
	}
	snaptest.NoLeaks(t)
	var all []fullDisk
	for _, op := range operations(t, 2<<20) {
		if !*every && (strings.Contains(op.name, "existing") || op.name == "RestoreFrom, new, separate WAL") {
			continue
		}
		if op.name == "Restore, new, separate WAL" {
			all = append(all, fullDisk{op, true, "."}, fullDisk{op, true, "log"})
		}
		all = append(all, fullDisk{operation: op, fills: "."})
	}
	for _, d := range all {
		t.Run(fmt.Sprintf("%s/%s", d.name, d.fills), func(t *testing.T) {
			root, unmount := d.disks(t)
			before := free(t, filepath.Join(root, d.fills))
			require.NoError(t, d.run(snapshot.New(), root))
			complete := list(t, root)
			need := before - free(t, filepath.Join(root, d.fills))
			unmount()

			failed := 0
			for leave := range rooms(need) {
				if d.try(t, leave, complete) {
					failed++
				}
			}
			require.False(t, d.try(t, need+1<<20, complete), "with room enough")
			require.Greater(t, failed, 3)
			t.Logf("full %d times, %d bytes needed", failed, need)
		})
	}
}

// rooms are numbers of bytes to leave: few pages, some MiB, and nearly enough.
func rooms(need int64) iter.Seq[int64] {
	step := int64(3 * page)
	if *every {
		step = page
	}
	edge := min(need/2, 12*page)
	return func(yield func(int64) bool) {
		for leave := int64(0); leave < need+4*page; leave += step {
			if !yield(leave) {
				return
			}
			if leave >= edge && leave < need-edge {
				leave = min(leave+need/5, need-edge)
			}
		}
	}
}

// A file system has no inodes left: 1, 2, 3… are all it has, until they are
// enough.
func TestNoInodes(t *testing.T) {
	if !withMounts(t) {
		return
	}
	snaptest.NoLeaks(t)
	for _, op := range operations(t, 2<<20) {
		t.Run(op.name, func(t *testing.T) {
			_, complete := op.outcomes(t)
			failed := 0
			for inodes := 0; ; inodes++ {
				root := t.TempDir()
				unmount := mount(t, root, fmt.Sprintf("size=%d", diskSize))
				op.prepare(t, root)
				absent := list(t, root)
				var st unix.Statfs_t
				require.NoError(t, unix.Statfs(root, &st))
				used := st.Files - st.Ffree
				limit := func(n uint64) {
					require.NoError(t, unix.Mount("tmpfs", root, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d,nr_inodes=%d", diskSize, n)))
				}
				limit(used + uint64(inodes))
				err := op.run(snapshot.New(), root)
				if err != nil {
					require.ErrorIs(t, err, syscall.ENOSPC, "%d inodes", inodes)
					requireListing(t, absent, root, inodes, err)
					limit(used + 1000)
					require.NoError(t, op.run(snapshot.New(), root))
					failed++
				}
				requireListing(t, complete, root)
				unmount()
				if err == nil {
					break
				}
			}
			require.Positive(t, failed)
			t.Logf("failed with up to %d inodes", failed-1)
		})
	}
}

// A file system that says nothing of its room, or that it is endless, is not full.
func TestFullDiskIsNotOneOfUnknownSize(t *testing.T) {
	if !withMounts(t) {
		return
	}
	path := snaptest.NewDB().Put("a", "b").Write(t, filepath.Join(t.TempDir(), "db"), true)
	for _, size := range []string{"0", "10E"} {
		t.Run(size, func(t *testing.T) {
			root := t.TempDir()
			unmount := mount(t, root, "size="+size)
			require.NoError(t, snapshot.New().Restore(apitest.Config(path, filepath.Join(root, "data"))))
			unmount()
		})
	}
}

// Two file systems with the same number of free bytes, of which each has enough,
// are enough. One is not.
func TestFullDiskIsNotHalfOfTwo(t *testing.T) {
	if !withMounts(t) {
		return
	}
	path := snaptest.NewDB().Put("a", "b").Write(t, filepath.Join(t.TempDir(), "db"), true)
	data, wal := t.TempDir(), t.TempDir()
	mount(t, data, "size=70m")
	mount(t, wal, "size=70m")
	require.Equal(t, free(t, data), free(t, wal))
	cfg := apitest.Config(path, filepath.Join(data, "data"))
	cfg.OutputWALDir = filepath.Join(data, "wal")
	require.ErrorIs(t, snapshot.New().Restore(cfg), syscall.ENOSPC)
	cfg.OutputWALDir = filepath.Join(wal, "wal")
	require.NoError(t, snapshot.New().Restore(cfg))
}
