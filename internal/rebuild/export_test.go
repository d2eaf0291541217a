package rebuild

import (
	"context"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"

	"etcd.example/snapshot/internal/bootstrap"
	"etcd.example/snapshot/internal/durable"
)

// Plan shows a plan to tests.
type Plan struct {
	SnapshotPath, DataDir, WALDir, WALName string

	Cluster *bootstrap.Cluster
	Changes bootstrap.Changes

	SkipHashCheck, AllowEmptyDataDir bool
}

func Resolve(ctx context.Context, cfg Config, fromReader bool) (*Plan, error) {
	p, err := cfg.resolve(ctx, durable.OS, fromReader)
	if p == nil {
		return nil, err
	}
	return &Plan{
		p.snapshotPath, p.dataDir, p.walDir, p.walName, p.cluster, p.changes,
		p.skipHashCheck, p.allowEmptyDataDir,
	}, err
}

func (p *Plan) SeparateWAL() bool { return (&plan{walName: p.WALName}).separateWAL() }

func (p *Plan) SpaceNeeded(snapshotSize int64) (data, wal int64) {
	return (&plan{walName: p.WALName}).spaceNeeded(snapshotSize)
}

func CheckPeerURLs(ctx context.Context, cfg Config, want types.URLs, timeout time.Duration) error {
	return cfg.checkPeerURLs(ctx, want, timeout)
}
