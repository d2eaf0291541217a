package apitest

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/durable/durabletest"
)

// Sweep calls try with a fault at operation first, first+step… until the call
// ends before the fault.
func Sweep(t *testing.T, first, step int, fault func(k int) *durabletest.Faults, try func(f *durabletest.Faults)) {
	t.Helper()
	hits := 0
	for k := first; ; k += step {
		f := fault(k)
		if try(f); t.Failed() {
			return
		}
		if _, hit := f.Hit(); hit {
			hits++
		}
		if !f.Reached(k) {
			require.NotZero(t, hits)
			t.Logf("%d faults", hits)
			return
		}
	}
}

// WritesOnly counts only writes and makes only writes fail.
type WritesOnly struct{ *durabletest.Faults }

func (w WritesOnly) Before(op durabletest.Op) error {
	if op.Kind != "write" {
		return nil
	}
	return w.Faults.Before(op)
}

// RequireCause requires that err is an Error with the fault that was injected.
func RequireCause(t *testing.T, err, fault error, at durabletest.Op) {
	t.Helper()
	want := fault
	if want == durabletest.ErrShortWrite {
		want = io.ErrShortWrite
	}
	require.ErrorIs(t, err, want, "%v", at)
	var e *snapshot.Error
	require.ErrorAs(t, err, &e)
}
