package rebuild

import (
	"context"

	"etcd.example/snapshot/internal/meter"
)

// publish makes the data directory visible. It is no longer cancelled.
func (s *staging) publish(ctx context.Context) error {
	m := s.Report.Start(meter.Publish, 1)
	if err := ctx.Err(); err != nil { // also from the report just now
		return err
	}
	if err := s.target.Commit(); err != nil {
		return err
	}
	m.Finish()
	return nil
}
