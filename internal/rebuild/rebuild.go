// Package rebuild is the restore pipeline: it creates a data directory from a
// snapshot.
//
//	plan ──> stage ──> copy ──> check ──> edit ──> complete ──> publish
//	                      └─ checksum ─┘
//
// From stage to complete everything happens in a hidden directory. publish makes it
// the data directory in one step.
package rebuild

import (
	"context"
	"io"

	"go.uber.org/zap"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/meter"
	"etcd.example/snapshot/internal/snapfile"
)

// Rebuild holds what a restore needs besides its Config. All fields must be set, but for Report.
type Rebuild struct {
	FS     durable.FS
	Logger *zap.Logger
	Report meter.Report
}

// FromFile restores the snapshot file cfg.SnapshotPath.
func (r Rebuild) FromFile(ctx context.Context, cfg Config) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p, err := cfg.resolve(ctx, r.FS, false)
	if err != nil {
		return err
	}
	f, err := snapfile.Open(p.snapshotPath)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read from
	if !p.skipHashCheck {
		if err := f.RequireTrailer(); err != nil {
			return err
		}
	}
	if err := snapfile.RequireDatabase(f, f.Size); err != nil {
		return err
	}
	if err := requireBump(ctx, f, p.changes); err != nil {
		return err
	}
	return r.run(ctx, p, f.TotalSize(), &fileSource{fs: r.FS, file: f, skipHash: p.skipHashCheck})
}

// FromReader restores the snapshot that it reads from src.
func (r Rebuild) FromReader(ctx context.Context, src io.Reader, cfg Config) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p, err := cfg.resolve(ctx, r.FS, true)
	if err != nil {
		return err
	}
	return r.run(ctx, p, 0, &streamSource{fs: r.FS, reader: src, skipHash: p.skipHashCheck})
}

// run carries out a plan. size is the size of the snapshot in bytes, 0 if unknown.
func (r Rebuild) run(ctx context.Context, p *plan, size int64, src source) (err error) {
	paths := []zap.Field{
		zap.String("path", p.snapshotPath), zap.String("data-dir", p.dataDir), zap.String("wal-dir", p.walDir),
	}
	r.Logger.Info("restoring snapshot", paths...)
	s, err := r.stage(p, size, src)
	if err != nil {
		return err
	}
	defer func() { err = s.cleanUp(err) }()

	if err := s.copy(ctx); err != nil {
		return err
	}
	if err := s.check(ctx); err != nil {
		return err
	}
	if err := s.edit(ctx); err != nil {
		return err
	}
	if err := s.complete(ctx); err != nil {
		return err
	}
	if err := s.publish(ctx); err != nil {
		return err
	}
	r.Logger.Info("restored snapshot", append(paths,
		zap.Stringer("member-id", p.cluster.LocalID()), zap.Stringer("cluster-id", p.cluster.ClusterID()))...)
	return nil
}
