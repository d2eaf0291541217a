package systemtest_test

// A restore or a save that is killed at any file operation leaves the target absent or
// complete, and the same call, made again, succeeds. A run tries a sample, and all with
// go test ./internal/systemtest -run TestKilledAt -every
// strace_test.go kills a real process at each system call (SIGKILL).

import (
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// From the kill on no file operation has an effect.
func TestKilledAtEveryFileOperation(t *testing.T) {
	snaptest.NoLeaks(t)
	for i, op := range operations(t, enoughForWriteback) {
		t.Run(op.name, func(t *testing.T) {
			t.Parallel()
			absent, complete := op.outcomes(t)
			first, step := sample(i)
			apitest.Sweep(t, first, step, durabletest.KillAt, func(f *durabletest.Faults) {
				root := op.root(t)
				err := op.run(apitest.Quick(f), root)
				if _, hit := f.Hit(); !hit {
					require.NoError(t, err)
					requireListing(t, complete, root)
				}
				requireOldOrNew(t, op, root, absent, complete)
				op.requireMended(t, root, complete)
			})
		})
	}
}
