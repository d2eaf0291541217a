package rebuild_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// slowDisk is cancelled while it writes back for the first time.
type slowDisk struct {
	durable.FS
	cancel context.CancelFunc
	calls  int
}

func (d *slowDisk) StartWriteback(durable.File, int64, int64) error {
	d.calls++
	d.cancel()
	return nil
}

// A disk whose queue is full does not keep a cancelled Restore for longer than
// one request.
func TestRestoreCancelledWhileTheDiskIsSlow(t *testing.T) {
	path := snaptest.NewDB().Large(40_000, 1000).Write(t, filepath.Join(t.TempDir(), "db"), true)
	snaptest.NoLeaks(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	disk := &slowDisk{FS: durable.OS, cancel: cancel}
	dir := t.TempDir()
	err := apitest.OnFS(disk, nil).RestoreContext(ctx, apitest.Config(path, filepath.Join(dir, "data")))
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 1, disk.calls)
	require.Empty(t, snaptest.TreeList(t, dir))
}

// brokenDisk fails to write back, and copies nothing, which is quick.
type brokenDisk struct {
	durable.FS
	failed chan struct{}
	copies int
}

func (d *brokenDisk) StartWriteback(durable.File, int64, int64) error {
	defer close(d.failed)
	return syscall.EIO
}

func (d *brokenDisk) FreeSpace(string) (int64, error) { return math.MaxInt64, nil }

func (d *brokenDisk) CopyRange(_ durable.File, _ int64, _ durable.File, _, n int64) (int64, error) {
	if d.copies++; d.copies > 1 {
		<-d.failed
		time.Sleep(100 * time.Microsecond) // all copies would take 13 s: long enough for the error to get through
	}
	return n, nil
}

// A disk that fails ends a Restore while there is still a lot to copy.
func TestRestoreEndsWhenTheDiskFails(t *testing.T) {
	const size = 1 << 40
	path := snaptest.SmallFile(t)
	if err := os.Truncate(path, size); err != nil {
		t.Skipf("no sparse file of 1 TiB here: %v", err)
	}
	snaptest.NoLeaks(t)
	disk := &brokenDisk{FS: durable.OS, failed: make(chan struct{})}
	dir := t.TempDir()
	cfg := apitest.Config(path, filepath.Join(dir, "data"))
	cfg.SkipHashCheck = true
	require.ErrorIs(t, apitest.OnFS(disk, nil).Restore(cfg), syscall.EIO)
	require.Less(t, disk.copies, size/(8<<20))
	require.Empty(t, snaptest.TreeList(t, dir))
}

// lostConnection ends with an error that wraps io.EOF.
type lostConnection struct{ r io.Reader }

func (l lostConnection) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if err == io.EOF {
		err = fmt.Errorf("connection lost: %w", err)
	}
	return n, err
}

func TestRestoreFromLostConnection(t *testing.T) {
	path := snaptest.NewDB().Put("a", "b").Write(t, filepath.Join(t.TempDir(), "db"), false)
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	dir := t.TempDir()
	cfg := apitest.Config("", filepath.Join(dir, "data"))
	cfg.SkipHashCheck = true
	err = snapshot.New().RestoreFrom(t.Context(), lostConnection{f}, cfg)
	require.ErrorContains(t, err, "connection lost")
	require.ErrorIs(t, err, snapshot.ErrTruncated)
	require.Empty(t, snaptest.TreeList(t, dir))
}
