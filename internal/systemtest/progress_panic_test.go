package systemtest_test

// A progress report that panics ends the call, which cleans up. In every run.

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
)

var errReport = errors.New("the report panics")

// A report is called on the goroutine of the caller: when it panics, so does the
// call, which leaves no goroutine, no file and no half-made directory behind.
func TestReportPanics(t *testing.T) {
	path := snaptest.NewDB().Large(5000, 1000).Write(t, filepath.Join(t.TempDir(), "db"), true)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	restore := func(skip bool) func(*testing.T, apitest.Manager, string) {
		return func(t *testing.T, m apitest.Manager, dir string) {
			cfg := apitest.Config(path, filepath.Join(dir, "data"))
			cfg.SkipHashCheck = skip
			require.NoError(t, m.Restore(cfg))
		}
	}
	serve := func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(content[:len(content)-32]) }
	for name, call := range map[string]func(t *testing.T, m apitest.Manager, dir string){
		"status": func(t *testing.T, m apitest.Manager, _ string) {
			_, err := m.Status(path)
			require.NoError(t, err)
		},
		"verify": func(t *testing.T, m apitest.Manager, _ string) {
			_, err := m.Verify(t.Context(), path)
			require.NoError(t, err)
		},
		"restore":           restore(false),
		"restore skip hash": restore(true),
		"restore from": func(t *testing.T, m apitest.Manager, dir string) {
			require.NoError(t, m.RestoreFrom(t.Context(), bytes.NewReader(content), apitest.Config("", filepath.Join(dir, "data"))))
		},
		"save": func(t *testing.T, m apitest.Manager, dir string) {
			s := snaptest.Serve(t, serve)
			require.NoError(t, m.Save(t.Context(), s.ClientConfig(), filepath.Join(dir, "db")))
		},
		"save to": func(t *testing.T, m apitest.Manager, _ string) {
			s := snaptest.Serve(t, serve)
			_, err := m.SaveTo(t.Context(), s.ClientConfig(), io.Discard)
			require.NoError(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			snaptest.NoLeaks(t)
			reports := 0
			for {
				n, panicked := callPanicking(t, call, reports)
				if !panicked {
					break // it had no more of them
				}
				require.Equal(t, reports, n, "reports before the panic, and none after")
				reports += short.Step(1, 7)
			}
			require.GreaterOrEqual(t, reports, 2)
		})
	}
}

// callPanicking has the report panic after so many reports, if there are more.
func callPanicking(t *testing.T, call func(*testing.T, apitest.Manager, string), after int) (reports int, panicked bool) {
	dir := t.TempDir()
	var last snapshot.Progress
	m := apitest.OnFS(apitest.QuickFS(), func(p snapshot.Progress) {
		if last = p; reports == after {
			panic(errReport)
		}
		reports++
	})
	defer func() {
		if left := snaptest.TreeList(t, dir); len(left) > 0 {
			require.Equal(t, last.Total, last.Done, "left: %v", left)
			requireWhole(t, dir)
		}
	}()
	defer func() {
		if v := recover(); v != nil {
			require.Equal(t, errReport, v)
			panicked = true
		}
	}()
	call(t, m, dir)
	return reports, false
}

// requireWhole wants dir to hold a saved snapshot or a restored directory.
func requireWhole(t *testing.T, dir string) {
	t.Helper()
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, names, 1)
	m, path := snapshot.New(), filepath.Join(dir, names[0].Name())
	if !names[0].IsDir() {
		_, err = m.Verify(t.Context(), path)
	} else {
		_, err = m.Status(filepath.Join(path, "member", "snap", "db"))
	}
	require.NoError(t, err)
}
