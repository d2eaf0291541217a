package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/bootstrap"
	"etcd.example/snapshot/internal/durable"
)

// checkedCopy is a copy whose structure is sound.
type checkedCopy struct {
	db      *boltfile.DB
	buckets []boltfile.Bucket
}

// checkStructure walks through the copy.
func checkStructure(ctx context.Context, f durable.File, size int64, mt *meter, scan boltfile.Options) (checkedCopy, error) {
	db, err := boltfile.Open(f, size)
	if err != nil {
		return checkedCopy{}, asCorrupt(err)
	}
	scan.Read = mt.add
	_, buckets, err := db.Scan(ctx, scan)
	if err != nil {
		return checkedCopy{}, asCorrupt(err)
	}
	mt.finish()
	return checkedCopy{db, buckets}, nil
}

// checkBump refuses the bump of a revision that has no room for it before
// anything is copied. What else is wrong is for the check of the copy to say.
func checkBump(ctx context.Context, f io.ReaderAt, size int64, ch bootstrap.Changes) error {
	db, err := boltfile.Open(f, size)
	if err != nil {
		return nil
	}
	var overflow *bootstrap.OverflowError
	if err := ch.CheckBump(ctx, db); errors.As(err, &overflow) {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return nil
}
