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
