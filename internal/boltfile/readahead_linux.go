package boltfile

import (
	"context"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// readers is how many reads are under way at once: a disk that serves
	// several at a time is idle between those of a single one.
	readers = 8
	// readerStep is how many bytes each asks for. Reading brings the kernel to
	// cache large folios, where an advice to read ahead leaves it single pages.
	readerStep = 512 << 10
)

// ReadAhead brings the first size bytes of f into the page cache, in file order,
// while they are walked in key order, which turns hundreds of thousands of
// random reads of a cold file into a few streams. It does nothing when the file
// is there already. The returned function ends it and must be called.
func ReadAhead(ctx context.Context, f *os.File, size int64) (stop func()) {
	if cached(f, size) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(readers, 1+size/readerStep) {
		wg.Go(func() {
			buf := make([]byte, readerStep)
			for ctx.Err() == nil {
				off := next.Add(readerStep) - readerStep
				if off >= size {
					return
				}
				if _, err := f.ReadAt(buf, off); err != nil {
					return // the end, or an error that the walk will meet
				}
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// cached says whether a sample of the file's pages is in the page cache.
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

// inMemory says whether the file system has no disk.
func inMemory(f *os.File) bool {
	var st unix.Statfs_t
	err := unix.Fstatfs(int(f.Fd()), &st)
	return err == nil && st.Type == unix.TMPFS_MAGIC
}
