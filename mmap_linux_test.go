package snapshot_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
)

// The system refuses to map the database for bbolt.
func TestRestoreThatCannotMap(t *testing.T) {
	for _, op := range restores(smallSnapshot(t)) {
		if !strings.HasPrefix(op.name, "Restore,") {
			continue
		}
		t.Run(op.name, func(t *testing.T) {
			snaptest.NoLeaks(t)
			root := op.root(t)
			absent := list(t, root)
			cfg := op.config(root)
			cfg.InitialMmapSize = 1<<48 - 1<<30 // more than a process has addresses
			err := snapshot.New().Restore(cfg)
			require.ErrorIs(t, err, syscall.ENOMEM)
			requireListing(t, absent, root)
		})
	}
}
