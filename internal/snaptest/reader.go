package snaptest

import (
	"io"
	"sync/atomic"
)

// FaultyReaderAt fails at one read, counted from 0. It is safe for concurrent
// use.
type FaultyReaderAt struct {
	io.ReaderAt
	FailAt int64
	Err    error // with io.EOF the first half of the bytes is still read

	reads atomic.Int64
}

// ReadAt implements [io.ReaderAt].
func (r *FaultyReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if r.reads.Add(1)-1 != r.FailAt {
		return r.ReaderAt.ReadAt(p, off)
	}
	if r.Err != io.EOF {
		return 0, r.Err
	}
	n, err := r.ReaderAt.ReadAt(p[:len(p)/2], off)
	if err == nil {
		err = io.EOF
	}
	return n, err
}

// Hit reports whether the read that fails has happened.
func (r *FaultyReaderAt) Hit() bool { return r.reads.Load() > r.FailAt }

// CountingReaderAt adds up the bytes that are read. It is safe for concurrent use.
type CountingReaderAt struct {
	io.ReaderAt
	N atomic.Int64
}

// ReadAt implements [io.ReaderAt].
func (r *CountingReaderAt) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(p, off)
	r.N.Add(int64(n))
	return n, err
}
