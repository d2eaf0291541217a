package boltfile_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/pagecache"
)

// openCount is how often path, and the device that takes what is read ahead, are
// open.
func openCount(path string) int {
	files := snaptest.OpenFiles()
	return files[path] + files[os.DevNull]
}

// When ReadAhead has been ended, or has come to its end, nothing of it is left.
// No garbage collection closes what was forgotten.
func TestReadAheadLeavesNothing(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	const size = 48 << 20
	path := writeFile(t, make([]byte, size))
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	before := openCount(path)
	for _, patience := range []time.Duration{0, time.Millisecond, 20 * time.Millisecond, time.Minute} {
		pagecache.MakeCold(t, path)
		stop := boltfile.ReadAhead(t.Context(), f, size)
		for start := time.Now(); time.Since(start) < patience && cachedShare(t, f) < 1; {
			runtime.Gosched()
		}
		stop()
		require.Equal(t, before, openCount(path), "ended after %v", patience)
	}
}

// A file that is refused is closed. One that is closed is unlocked, even if a
// process that is just being started has a copy of the descriptor.
func TestCloseFile(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	dir := t.TempDir()
	path := filepath.Join(dir, "db")
	require.NoError(t, os.WriteFile(path, []byte("content"), 0o600))
	before := openCount(dir)
	_, _, err := boltfile.OpenFile(dir)
	require.ErrorIs(t, err, boltfile.ErrNotRegular)
	require.Equal(t, before, openCount(dir))

	writer, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Flock(int(writer.Fd()), unix.LOCK_EX))
	before = openCount(path)
	_, _, err = boltfile.OpenFile(path)
	require.ErrorIs(t, err, boltfile.ErrLocked)
	require.Equal(t, before, openCount(path))
	require.NoError(t, unix.Flock(int(writer.Fd()), unix.LOCK_UN))

	f, _, err := boltfile.OpenFile(path)
	require.NoError(t, err)
	require.Equal(t, unix.EWOULDBLOCK, unix.Flock(int(writer.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	forked, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, boltfile.CloseFile(f))
	require.NoError(t, unix.Flock(int(writer.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	require.NoError(t, unix.Close(forked))
	require.NoError(t, writer.Close())
	require.Error(t, boltfile.CloseFile(f), "closed already")
}

// lateReader notes reads after the scan. Those of other goroutines than the
// caller's stand still, once begun is closed, to see whether the scan returns
// meanwhile.
type lateReader struct {
	io.ReaderAt
	caller      string
	begun, over chan struct{}
	failAt      int // the read of the caller that fails, counted from 1

	mu   sync.Mutex
	late int
}

func (r *lateReader) ReadAt(p []byte, off int64) (int, error) {
	if snaptest.GoroutineID() == r.caller {
		if r.failAt--; r.failAt == 0 {
			close(r.begun)
			return 0, errDisk
		}
		return r.ReaderAt.ReadAt(p, off)
	}
	select {
	case <-r.begun:
		select {
		case <-r.over:
		case <-time.After(20 * time.Millisecond):
		}
	default:
	}
	n, err := r.ReaderAt.ReadAt(p, off)
	select {
	case <-r.over:
		r.mu.Lock()
		r.late++
		r.mu.Unlock()
	default:
	}
	return n, err
}

// A scan that ends early, by an error or a panic, takes its goroutines along.
func TestScanIsOverWhenItReturns(t *testing.T) {
	b := build(t, 4096, false, fill("a", 60_000, 100))
	for _, how := range []string{"panic", "error"} {
		t.Run(how, func(t *testing.T) {
			for at := 6; at < 16; at++ {
				r := &lateReader{ReaderAt: bytes.NewReader(b), caller: snaptest.GoroutineID(), begun: make(chan struct{}), over: make(chan struct{})}
				db, err := boltfile.Open(r, int64(len(b)))
				require.NoError(t, err)
				reads := 0
				opts := boltfile.Options{Workers: 4}
				if how == "error" {
					r.failAt = at
				} else {
					opts.Read = func(int64) {
						if reads++; reads == at {
							close(r.begun)
							panic(errDisk)
						}
					}
				}
				func() {
					defer func() { _ = recover() }()
					_, _, err = db.Scan(t.Context(), opts)
				}()
				close(r.over)
				time.Sleep(5 * time.Millisecond) // only what goes on needs it
				r.mu.Lock()
				require.Zero(t, r.late, "reads after the scan, ended at read %d", at)
				r.mu.Unlock()
			}
		})
	}
}
