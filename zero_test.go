package snapshot_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
)

// A zero V3Manager works like one that New made, in every method.
func TestZeroManager(t *testing.T) {
	path := write(t)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(content[:len(content)-32]) })
	var zero snapshot.V3Manager
	for name, m := range map[string]*snapshot.V3Manager{
		"zero":        &zero,
		"New(nil)":    snapshot.New(nil),
		"nil options": snapshot.New(nil, snapshot.WithLogger(nil), nil, snapshot.WithProgress(nil), snapshot.WithFS(nil)),
		"NewV3(nil)":  snapshot.NewV3(nil).(*snapshot.V3Manager),
		"New()":       snapshot.New(),
		"no timeouts": snapshot.New(snapshot.WithConnectTimeout(0), snapshot.WithStallTimeout(0)),
	} {
		t.Run(name, func(t *testing.T) {
			snaptest.NoLeaks(t)
			dir := t.TempDir()
			saved := filepath.Join(dir, "saved.db")
			cfg := s.ClientConfig()
			cfg.Logger = nil // then that of the manager is used
			require.NoError(t, m.Save(t.Context(), cfg, saved))
			got, err := os.ReadFile(saved)
			require.NoError(t, err)
			require.Equal(t, content, got)
			_, err = m.SaveTo(t.Context(), cfg, io.Discard)
			require.NoError(t, err)

			want, err := m.Status(path)
			require.NoError(t, err)
			st, err := m.StatusContext(t.Context(), saved)
			require.NoError(t, err)
			require.Equal(t, want, st)
			st, err = m.Verify(t.Context(), saved)
			require.NoError(t, err)
			require.Equal(t, want, st)

			require.NoError(t, m.Restore(config(path, filepath.Join(dir, "a"))))
			require.NoError(t, m.RestoreContext(t.Context(), config(path, filepath.Join(dir, "b"))))
			require.NoError(t, m.RestoreFrom(t.Context(), bytes.NewReader(content), config("", filepath.Join(dir, "c"))))
		})
	}
	require.Equal(t, snapshot.V3Manager{}, zero, "changed by its methods")
}

// The timeouts of a zero manager are the defaults, and not none.
func TestZeroManagerTimeouts(t *testing.T) {
	connect, stall := snapshot.Timeouts(new(snapshot.V3Manager))
	require.Equal(t, snapshot.DefaultConnectTimeout, connect)
	require.Equal(t, snapshot.DefaultStallTimeout, stall)
	for _, d := range []time.Duration{0, -1, -time.Hour} {
		connect, stall = snapshot.Timeouts(snapshot.New(snapshot.WithConnectTimeout(d), snapshot.WithStallTimeout(d)))
		require.Negative(t, connect)
		require.Negative(t, stall)
	}
	connect, stall = snapshot.Timeouts(snapshot.New(snapshot.WithConnectTimeout(1), snapshot.WithStallTimeout(2)))
	require.EqualValues(t, 1, connect)
	require.EqualValues(t, 2, stall)
}
