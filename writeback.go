package snapshot

import (
	"fmt"
	"time"

	"etcd.example/snapshot/internal/durable"
)

// writebackStep is after how many bytes the kernel is asked to write them out.
const writebackStep = 8 << 20

// writebackWriter writes to a file one block after the other and keeps the disk
// busy from the beginning, so that the sync at the end finds little left to do.
type writebackWriter struct {
	fs      durable.FS
	f       durable.File
	drop    bool    // out of the page cache, what is on the disk
	paced   *pieces // finds the steps where a cancelled call must not wait long
	written int64
	started int64 // bytes whose write-back has been asked for
	dropped int64
}

func (w *writebackWriter) Write(p []byte) (int, error) {
	n, err := w.f.WriteAt(p, w.written)
	w.written += int64(n)
	if err == nil && w.written-w.started >= w.step() {
		err = w.writeback()
	}
	return n, err
}

func (w *writebackWriter) step() int64 {
	if w.paced == nil {
		return writebackStep
	}
	return w.paced.next()
}

// writeback starts to write out what is new, and drops what was new before: the
// disk has had the time of one step for it.
func (w *writebackWriter) writeback() error {
	begin := time.Now()
	if err := w.fs.StartWriteback(w.f, w.started, w.written-w.started); err != nil {
		return fmt.Errorf("start write-back: %w", err)
	}
	if w.paced != nil {
		w.paced.took(w.written-w.started, time.Since(begin))
	}
	if w.drop && w.started > 0 {
		if err := w.fs.AwaitWriteback(w.f, w.dropped, w.started-w.dropped); err != nil {
			return fmt.Errorf("wait for write-back: %w", err)
		}
		w.fs.DropCache(w.f, w.dropped, w.started-w.dropped)
		w.dropped = w.started
	}
	w.started = w.written
	return nil
}
