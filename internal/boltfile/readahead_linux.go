package boltfile

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// readAheadStreams and readAheadStretch are a compromise between disks
	// with a large and with a small read-ahead.
	readAheadStreams = 3
	readAheadStretch = 32 << 20
	// readAheadCall is how many bytes one call reads. A call cannot be cancelled.
	readAheadCall = 256 << 10
)

// ReadAhead lets the kernel read the first size bytes of r in a few streams. A walk
// in key order through a cold file would otherwise be hundreds of thousands of
// random reads, and a single reader would not keep the disk busy; both then find
// the bytes in memory. ReadAhead does nothing if they are in the page cache already,
// or if r is not an [*os.File]. The caller must call the returned function, which
// ends it.
func ReadAhead(ctx context.Context, r io.ReaderAt, size int64) (stop func()) {
	f, ok := r.(*os.File)
	if !ok || cached(f, size) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range readAheadStreams {
		wg.Go(func() {
			for {
				end := next.Add(readAheadStretch)
				off := end - readAheadStretch
				if off >= size || readStretch(ctx, f, off, min(end, size)) != nil {
					return
				}
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// readStretch sends bytes of f to /dev/null, which leaves them in the page cache
// without a copy. The kernel adapts its read-ahead to each open file, so this one
// must not be the file of the walk.
func readStretch(ctx context.Context, f *os.File, off, end int64) error {
	own, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return err
	}
	defer func() { _ = own.Close() }() // only read from
	if err := unix.Fadvise(int(own.Fd()), 0, 0, unix.FADV_SEQUENTIAL); err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }() // it stores nothing
	for off < end && ctx.Err() == nil {
		n, err := unix.Sendfile(int(null.Fd()), int(own.Fd()), &off, int(min(readAheadCall, end-off)))
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// cached reports whether a sample of the file's pages is in the page cache.
func cached(f *os.File, size int64) bool {
	const samples = 64
	const nowait = 0x8 // RWF_NOWAIT of preadv2(2): fail instead of waiting for the disk
	var b [1]byte
	for i := range int64(samples) {
		off := size / samples * i
		n, err := unix.Preadv2(int(f.Fd()), [][]byte{b[:]}, off, nowait)
		if err == unix.EOPNOTSUPP {
			return inMemory(f)
		}
		if n != len(b) || err != nil {
			return false
		}
	}
	return true
}

// inMemory reports whether the file system has no disk.
func inMemory(f *os.File) bool {
	var st unix.Statfs_t
	err := unix.Fstatfs(int(f.Fd()), &st)
	return err == nil && st.Type == unix.TMPFS_MAGIC
}
