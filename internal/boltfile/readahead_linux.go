package boltfile

import (
	"context"
	"os"

	"golang.org/x/sys/unix"
)

// ReadAhead has the kernel read the first size bytes of f in file order while
// they are walked in key order, which turns hundreds of thousands of random
// reads of a cold file into one stream. It does nothing when the file is in the
// page cache. The returned function ends it and must be called.
func ReadAhead(ctx context.Context, f *os.File, size int64) (stop func()) {
	if cached(f, size) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		const step = 4 << 20
		for off := int64(0); off < size && ctx.Err() == nil; off += step {
			if unix.Fadvise(int(f.Fd()), off, min(step, size-off), unix.FADV_WILLNEED) != nil {
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
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
