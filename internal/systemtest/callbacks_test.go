package systemtest_test

// Progress reports, readers and writers are called on the goroutine of the
// caller. In every run.

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// calls notes on which goroutines it was called.
type calls map[string]int

func (c calls) Write(p []byte) (int, error) {
	c[snaptest.GoroutineID()]++
	return len(p), nil
}

// What the caller hands over is called on the caller's goroutine: the report,
// the reader of RestoreFrom, the writer of SaveTo.
func TestCallsOnTheGoroutineOfTheCaller(t *testing.T) {
	path := snaptest.NewDB().Large(5000, 1000).Write(t, filepath.Join(t.TempDir(), "db"), true)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	serve := func(t *testing.T) *snaptest.FakeServer {
		return snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(content[:len(content)-32]) })
	}
	for name, call := range map[string]func(t *testing.T, m apitest.Manager, used calls) error{
		"Status": func(_ *testing.T, m apitest.Manager, _ calls) error {
			_, err := m.Status(path)
			return err
		},
		"Verify": func(t *testing.T, m apitest.Manager, _ calls) error {
			_, err := m.Verify(t.Context(), path)
			return err
		},
		"Restore": func(t *testing.T, m apitest.Manager, _ calls) error {
			return m.Restore(apitest.Config(path, filepath.Join(t.TempDir(), "data")))
		},
		"RestoreFrom": func(t *testing.T, m apitest.Manager, used calls) error {
			r := io.TeeReader(bytes.NewReader(content), used) // writes as it reads
			return m.RestoreFrom(context.Background(), r, apitest.Config("", filepath.Join(t.TempDir(), "data")))
		},
		"Save": func(t *testing.T, m apitest.Manager, _ calls) error {
			return m.Save(t.Context(), serve(t).ClientConfig(), filepath.Join(t.TempDir(), "db"))
		},
		"SaveTo": func(t *testing.T, m apitest.Manager, used calls) error {
			_, err := m.SaveTo(t.Context(), serve(t).ClientConfig(), used)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			used, reports := calls{}, calls{}
			m := snapshot.New(snapshot.WithProgress(func(snapshot.Progress) { reports[snaptest.GoroutineID()]++ }))
			require.NoError(t, call(t, m, used))
			own := snaptest.GoroutineID()
			require.Equal(t, calls{own: reports[own]}, reports)
			require.GreaterOrEqual(t, reports[own], 2)
			if name == "RestoreFrom" || name == "SaveTo" {
				require.Equal(t, calls{own: used[own]}, used)
				require.GreaterOrEqual(t, used[own], 5)
			}
		})
	}
}
