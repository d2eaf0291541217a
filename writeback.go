package snapshot

import (
	"fmt"

	"etcd.example/snapshot/internal/durable"
)

// writebackStep is after how many bytes the kernel is asked to write them out.
const writebackStep = 8 << 20

// writebackWriter writes to a file one block after the other and keeps the disk
// busy from the beginning, so that the sync at the end finds little left to do.
type writebackWriter struct {
	fs      durable.FS
	f       durable.File
	written int64
	started int64 // bytes whose write-back has been asked for
}

func (w *writebackWriter) Write(p []byte) (int, error) {
	n, err := w.f.WriteAt(p, w.written)
	w.written += int64(n)
	if pending := w.written - w.started; err == nil && pending >= writebackStep {
		if err := w.fs.StartWriteback(w.f, w.started, pending); err != nil {
			return n, fmt.Errorf("start write-back: %w", err)
		}
		w.started = w.written
	}
	return n, err
}
