package snapshot_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

func TestStatusProgress(t *testing.T) {
	path := snaptest.NewDB().Large(20_000, 1000).Write(t, filepath.Join(t.TempDir(), "db"), true)
	for op, call := range map[string]func(apitest.Manager) (snapshot.Status, error){
		"status": func(m apitest.Manager) (snapshot.Status, error) { return m.Status(path) },
		"verify": func(m apitest.Manager) (snapshot.Status, error) { return m.Verify(context.Background(), path) },
	} {
		var r apitest.Recorder
		st, err := call(snapshot.New(snapshot.WithProgress(r.Report)))
		require.NoError(t, err)
		r.RequireProgress(t, op, snapshot.PhaseRead, st.TotalSize)
	}
}

// Reports come a mebibyte apart, and only the last one says that all is done.
func TestStatusProgressSteps(t *testing.T) {
	path := snaptest.NewDB().Large(20_000, 1000).Write(t, filepath.Join(t.TempDir(), "db"), true)
	for _, call := range []func(apitest.Manager) (snapshot.Status, error){
		func(m apitest.Manager) (snapshot.Status, error) { return m.Status(path) },
		func(m apitest.Manager) (snapshot.Status, error) { return m.Verify(context.Background(), path) },
	} {
		var r apitest.Recorder
		st, err := call(snapshot.New(snapshot.WithProgress(r.Report)))
		require.NoError(t, err)
		last := len(r.All) - 1
		for i, p := range r.All[:last] {
			require.Less(t, p.Done, st.TotalSize)
			if i > 0 && i < last-1 {
				require.GreaterOrEqual(t, p.Done-r.All[i-1].Done, int64(1<<20))
			}
		}
		require.Equal(t, st.TotalSize, r.All[last].Done)
	}
}
