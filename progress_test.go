package snapshot_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
)

// recorder gathers progress reports. It has no lock: reports come on the
// goroutine of the caller.
type recorder struct{ all []snapshot.Progress }

func (r *recorder) report(p snapshot.Progress) { r.all = append(r.all, p) }

// requireProgress checks the reports of one phase: from 0 to the total, rising.
func (r *recorder) requireProgress(tb testing.TB, op string, phase snapshot.Phase, total int64) {
	tb.Helper()
	var last snapshot.Progress
	n := 0
	for _, p := range r.all {
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

func TestStatusProgress(t *testing.T) {
	path := snaptest.NewDB().Large(20_000, 1000).Write(t, filepath.Join(t.TempDir(), "db"), true)
	for op, call := range map[string]func(*snapshot.V3Manager) (snapshot.Status, error){
		"status": func(m *snapshot.V3Manager) (snapshot.Status, error) { return m.Status(path) },
		"verify": func(m *snapshot.V3Manager) (snapshot.Status, error) { return m.Verify(context.Background(), path) },
	} {
		var r recorder
		st, err := call(snapshot.New(snapshot.WithProgress(r.report)))
		require.NoError(t, err)
		r.requireProgress(t, op, snapshot.PhaseRead, st.TotalSize)
	}
}

// Reports come a mebibyte apart, and only the last one says that all is done.
func TestStatusProgressSteps(t *testing.T) {
	path := snaptest.NewDB().Large(20_000, 1000).Write(t, filepath.Join(t.TempDir(), "db"), true)
	for _, call := range []func(*snapshot.V3Manager) (snapshot.Status, error){
		func(m *snapshot.V3Manager) (snapshot.Status, error) { return m.Status(path) },
		func(m *snapshot.V3Manager) (snapshot.Status, error) { return m.Verify(context.Background(), path) },
	} {
		var r recorder
		st, err := call(snapshot.New(snapshot.WithProgress(r.report)))
		require.NoError(t, err)
		last := len(r.all) - 1
		for i, p := range r.all[:last] {
			require.Less(t, p.Done, st.TotalSize)
			if i > 0 && i < last-1 {
				require.GreaterOrEqual(t, p.Done-r.all[i-1].Done, int64(1<<20))
			}
		}
		require.Equal(t, st.TotalSize, r.all[last].Done)
	}
}

// What was read twice counts once: only the end is reported as such. Where nobody
// knows the total it is what was counted.
func TestProgressEnds(t *testing.T) {
	const total = 8 << 20
	for _, known := range []int64{total, 0} {
		var r recorder
		add, finish := snapshot.NewMeter(r.report, known)
		for range total >> 20 {
			add(1 << 20)
		}
		if known > 0 {
			add(3 << 20)
			for _, p := range r.all {
				require.Less(t, p.Done, p.Total)
			}
		}
		finish()
		end := r.all[len(r.all)-1]
		require.EqualValues(t, total, end.Done)
		require.EqualValues(t, total, end.Total)
	}
}
