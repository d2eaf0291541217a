// Package inspect reports what a snapshot holds. One walk over the database answers
// all questions.
package inspect

import (
	"context"
	"errors"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/meter"
	"etcd.example/snapshot/internal/snapfile"
	"etcd.example/snapshot/internal/trailer"
)

// Status describes a snapshot, as package snapshot documents it.
type Status struct {
	Hash      uint32
	Revision  int64
	TotalKey  int
	TotalSize int64
	Version   string
}

// File reports what the snapshot file at path holds, and checks the structure of
// its database.
func File(ctx context.Context, path string, report meter.Report) (Status, error) {
	if err := ctx.Err(); err != nil {
		return Status{}, err
	}
	f, err := snapfile.Open(path)
	if err != nil {
		return Status{}, err
	}
	defer func() { _ = f.Close() }() // only read from
	defer boltfile.ReadAhead(ctx, f.File, f.Size)()

	m := report.Start(meter.Read, f.Size)
	status, err := Database(ctx, f, f.Size, false, boltfile.Options{Read: m.Add})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return Status{}, err
	}
	m.Finish()
	return status, nil
}

// Verify does what File does, strictly, and compares the checksum at the same time.
func Verify(ctx context.Context, path string, report meter.Report) (Status, error) {
	if err := ctx.Err(); err != nil {
		return Status{}, err
	}
	f, err := snapfile.Open(path)
	if err != nil {
		return Status{}, err
	}
	defer func() { _ = f.Close() }() // only read from
	if err := f.RequireTrailer(); err != nil {
		return Status{}, err
	}
	// A database of the other byte order still has a checksum to compare.
	if err := snapfile.RequireDatabase(f, f.Size); err != nil && !errors.Is(err, fault.ErrByteOrder) {
		return Status{}, err
	}
	defer boltfile.ReadAhead(ctx, f.File, f.Size)()

	m := report.Start(meter.Read, f.Size)
	ctx, cancel := context.WithCancel(ctx)
	walked := make(chan error, 1)
	var status Status
	go func() {
		defer close(walked)
		var err error
		status, err = Database(ctx, f, f.Size, true, boltfile.Options{Workers: boltfile.AllButOne()})
		walked <- err
	}()
	defer func() { // also where a report panics
		cancel()
		<-walked
	}()
	err = trailer.CheckFile(ctx, f, f.Size, m.Add)
	if err := fault.Join(err, <-walked); err != nil {
		return Status{}, err
	}
	if err := ctx.Err(); err != nil {
		return Status{}, err
	}
	m.Finish()
	return status, nil
}
