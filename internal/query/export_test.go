package query

import (
	"context"
	"io"

	"etcd.example/snapshot/internal/boltfile"
)

// NewDatabase opens the database in the first size bytes of r.
func NewDatabase(ctx context.Context, r io.ReaderAt, size int64, scan boltfile.Options) (*Database, error) {
	return newDatabase(ctx, r, size, scan)
}

// SetMaxWindow makes the windows small, so that a range of some keys takes several.
func (db *Database) SetMaxWindow(bytes int64) { db.maxWindow = bytes }

// WindowIsPart reports whether the window that was read last holds only a part of its
// range.
func (db *Database) WindowIsPart() bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.window != nil && db.window.next != nil
}
