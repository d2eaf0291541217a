// Package snapshot fetches, judges and restores snapshots of etcd v3.
package snapshot

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Manager defines the snapshot methods. [V3Manager] implements it for the v3
// storage of etcd 3.4 and later.
type Manager interface {
	// Save fetches a snapshot from the one etcd member in cfg.Endpoints and
	// writes it to dbPath. See [V3Manager.Save].
	Save(ctx context.Context, cfg clientv3.Config, dbPath string) error

	// Status says what is in the snapshot at dbPath. See [V3Manager.Status].
	Status(dbPath string) (Status, error)

	// Restore makes a new etcd data directory from a snapshot file. See
	// [V3Manager.Restore].
	Restore(cfg RestoreConfig) error
}

// NewV3 returns a Manager for v3 snapshots that logs to lg. A nil lg is silent.
func NewV3(lg *zap.Logger) Manager {
	return New(WithLogger(lg))
}
