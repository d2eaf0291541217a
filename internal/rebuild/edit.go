package rebuild

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/bootstrap"
	"etcd.example/snapshot/internal/snapfile"
)

// edit makes the database part of the new cluster, in one transaction, and closes
// it.
func (s *staging) edit(ctx context.Context) error {
	tx := s.db.Edit(ctx, s.file, s.buckets)
	bumped, err := s.plan.cluster.Edit(tx, s.plan.changes)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		return fmt.Errorf("edit database: %w", err)
	}
	if bumped != 0 {
		s.Logger.Info("bumped latest revision and marked it compacted", zap.Int64("revision", bumped))
	}
	return s.closeDatabase(nil)
}

// requireBump refuses a revision bump that does not fit, before anything is copied.
// It ignores all other errors: the check of the copy reports those.
func requireBump(ctx context.Context, f *snapfile.File, changes bootstrap.Changes) error {
	db, err := boltfile.Open(f, f.Size)
	if err != nil {
		return nil
	}
	var overflow *bootstrap.OverflowError
	if err := changes.CheckBump(ctx, db); errors.As(err, &overflow) {
		return err
	}
	return nil
}
