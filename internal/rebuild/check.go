package rebuild

import (
	"context"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/meter"
)

// check checks every page in use of the copy while its checksum is computed. Then
// it waits for the checksum, and for the disk: the sync at the end, which cannot be
// cancelled, shall have little to do.
func (s *staging) check(ctx context.Context) error {
	err := s.scan(ctx)
	if err := fault.Join(s.source.settle(), err); err != nil {
		return err
	}
	return durable.AwaitWriteback(ctx, s.FS, s.file, s.size)
}

func (s *staging) scan(ctx context.Context) (err error) {
	var scan boltfile.Options
	if s.source.hashing() {
		scan.Workers = boltfile.AllButOne()
	} else { // a reflink may not be in the page cache
		defer boltfile.ReadAhead(ctx, s.file, s.size)()
	}
	m := s.Report.Start(meter.Check, s.size)
	scan.Read = m.Add
	if s.db, err = boltfile.Open(s.file, s.size); err != nil {
		return err
	}
	if _, s.buckets, err = s.db.Scan(ctx, scan); err != nil {
		return err
	}
	m.Finish()
	return nil
}
