package apitest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
)

// Recorder collects progress reports. It has no lock: reports come on the goroutine
// of the caller.
type Recorder struct{ All []snapshot.Progress }

func (r *Recorder) Report(p snapshot.Progress) { r.All = append(r.All, p) }

// RequireProgress checks the reports of one phase: from 0 to the total, rising.
func (r *Recorder) RequireProgress(tb testing.TB, op string, phase snapshot.Phase, total int64) {
	tb.Helper()
	var last snapshot.Progress
	n := 0
	for _, p := range r.All {
		if p.Phase != phase {
			continue
		}
		require.Equal(tb, op, p.Op)
		require.Equal(tb, total, p.Total)
		require.GreaterOrEqual(tb, p.Done, last.Done)
		if n == 0 {
			require.Zero(tb, p.Done)
		} else {
			require.LessOrEqual(tb, p.Done, total)
		}
		last = p
		n++
	}
	require.GreaterOrEqual(tb, n, 2, "reports of %s", phase)
	require.Equal(tb, total, last.Done)
}
