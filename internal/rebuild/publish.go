package rebuild

import (
	"context"

	"etcd.example/snapshot/internal/meter"
)

// publish makes the staged directory the data directory, by the rename in
// durable/commit.go: the moment at which a restore becomes visible. From here on it
// can no longer be cancelled.
func (s *staging) publish(ctx context.Context) error {
	m := s.Report.Start(meter.Publish, 1)
	if err := ctx.Err(); err != nil { // the report may have ended it
		return err
	}
	if err := s.target.Commit(); err != nil {
		return err
	}
	m.Finish()
	return nil
}
