package durable

import (
	"context"
	"fmt"
	"time"
)

// writebackStep is the number of bytes after which write-back is requested.
const writebackStep = 8 << 20

// WritebackWriter writes a file from beginning to end and keeps the disk busy
// meanwhile, so that the sync at the end has little left to do.
type WritebackWriter struct {
	FS    FS
	File  File
	Drop  bool    // remove what is on the disk from the page cache
	Paced *Pieces // sizes the steps if a cancelled call must not wait long; else nil

	written int64
	started int64 // bytes whose write-back was requested
	dropped int64
}

// Write implements [io.Writer].
func (w *WritebackWriter) Write(p []byte) (int, error) {
	n, err := w.File.WriteAt(p, w.written)
	w.written += int64(n)
	if err == nil && w.written-w.started >= w.step() {
		err = w.writeback()
	}
	return n, err
}

func (w *WritebackWriter) step() int64 {
	if w.Paced == nil {
		return writebackStep
	}
	return w.Paced.Next()
}

// writeback starts the write-back of the new bytes, and drops those of the step
// before: the disk has had the time of one step for them.
func (w *WritebackWriter) writeback() error {
	begin := time.Now()
	if err := requestWriteback(w.FS, w.File, w.started, w.written-w.started); err != nil {
		return err
	}
	if w.Paced != nil {
		w.Paced.Took(w.written-w.started, time.Since(begin))
	}
	if w.Drop && w.started > 0 {
		if err := completeWriteback(w.FS, w.File, w.dropped, w.started-w.dropped); err != nil {
			return err
		}
		w.FS.DropCache(w.File, w.dropped, w.started-w.dropped)
		w.dropped = w.started
	}
	w.started = w.written
	return nil
}

// StartWriteback requests the write-back of the bytes from off to end, in pieces.
// It waits while the queue of the disk is full.
func StartWriteback(ctx context.Context, p *Pieces, fsys FS, f File, off, end int64) error {
	return p.Each(ctx, off, end, func(off, n int64) error { return requestWriteback(fsys, f, off, n) })
}

// AwaitWriteback waits until the first size bytes are on the disk, in pieces, so
// that a sync, which cannot be cancelled, has little left to do.
func AwaitWriteback(ctx context.Context, fsys FS, f File, size int64) error {
	return new(Pieces).Each(ctx, 0, size, func(off, n int64) error { return completeWriteback(fsys, f, off, n) })
}

func requestWriteback(fsys FS, f File, off, n int64) error {
	if err := fsys.StartWriteback(f, off, n); err != nil {
		return fmt.Errorf("start write-back: %w", err)
	}
	return nil
}

func completeWriteback(fsys FS, f File, off, n int64) error {
	if err := fsys.AwaitWriteback(f, off, n); err != nil {
		return fmt.Errorf("wait for write-back: %w", err)
	}
	return nil
}
