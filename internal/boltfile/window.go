package boltfile

import "io"

// window is the part of the file that one worker has in memory. Leaf pages that
// are adjacent in key order mostly are in the file too, so a read is larger than the
// page if the caller knows that its neighbours come next.
type window struct {
	r       io.ReaderAt
	end     int64 // of the file's used part
	off     int64 // of data in the file
	data    []byte
	counted func(n int64) // called after every read
}

const (
	windowSize = 128 << 10 // fits in the second-level cache
	// The largest leaf that is held in memory as a whole. The largest record of an
	// etcd with default settings has 1.5 MiB.
	maxHeldLeaf = 4 << 20
	// A branch page is much smaller: bbolt splits it when it exceeds one page and
	// has more than four elements, and a key has at most 32 KiB.
	maxBranch = 1 << 20
)

// bytes returns n bytes of the file at off. If they are not in memory, it reads up
// to ahead bytes at once. It does not read again what is in memory already. The
// result is valid until the next call.
func (w *window) bytes(off, n, ahead int64) ([]byte, error) {
	if off >= w.off && off+n <= w.off+int64(len(w.data)) {
		start := off - w.off
		return w.data[start : start+n : start+n], nil
	}
	size := min(max(n, min(ahead, windowSize)), max(n, w.end-off))
	var kept []byte
	if off >= w.off && off < w.off+int64(len(w.data)) {
		kept = w.data[off-w.off:]
	}
	data := w.data[:0]
	if int64(cap(data)) < size {
		data = make([]byte, 0, max(size, windowSize))
	}
	data = append(data, kept...)[:size]
	w.data = data[:0]
	if err := readFull(w.r, data[len(kept):], off+int64(len(kept))); err != nil {
		return nil, err
	}
	w.data, w.off = data, off
	w.counted(size - int64(len(kept)))
	return w.data[:n:n], nil
}
