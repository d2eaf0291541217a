package snapshot_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// documented is the documented API; it must never fail to compile.
type documented interface {
	Save(ctx context.Context, cfg clientv3.Config, dbPath string) error
	Status(dbPath string) (snapshot.Status, error)
	Restore(cfg snapshot.RestoreConfig) error
}

var (
	_ documented                                    = snapshot.Manager(nil)
	_ snapshot.Manager                              = documented(nil)
	_ func(*zap.Logger) snapshot.Manager            = snapshot.NewV3
	_ func(...snapshot.Option) *snapshot.V3Manager  = snapshot.New
	_ func(*zap.Logger) snapshot.Option             = snapshot.WithLogger
	_ func(func(snapshot.Progress)) snapshot.Option = snapshot.WithProgress
	_ func(time.Duration) snapshot.Option           = snapshot.WithConnectTimeout
	_ func(time.Duration) snapshot.Option           = snapshot.WithStallTimeout
	_ snapshot.Manager                              = (*snapshot.V3Manager)(nil)
	_                                               = snapshot.RestoreConfig{SnapshotPath: "", Name: "", OutputDataDir: "", OutputWALDir: "", PeerURLs: []string{}, InitialCluster: "", InitialClusterToken: "", SkipHashCheck: false, InitialMmapSize: uint64(0), RevisionBump: uint64(0), MarkCompacted: false, AllowEmptyDataDir: false, DropAlarms: false}
	_                                               = snapshot.Status{Hash: uint32(0), Revision: int64(0), TotalKey: int(0), TotalSize: int64(0), Version: ""}
	_                                               = snapshot.Saved{Size: int64(0), SHA256: [32]byte{}, Version: "", Took: time.Duration(0), Revision: int64(0)}
	_ error                                         = &snapshot.Error{Op: "", Path: "", Err: error(nil)}
)

var _ interface {
	documented
	SaveFile(ctx context.Context, cfg clientv3.Config, dbPath string) (snapshot.Saved, error)
	SaveFrom(ctx context.Context, cli *clientv3.Client, dbPath string) (snapshot.Saved, error)
	SaveTo(ctx context.Context, cfg clientv3.Config, w io.Writer) (snapshot.Saved, error)
	VerifyFrom(ctx context.Context, r io.Reader) (snapshot.Saved, error)
	StatusContext(ctx context.Context, dbPath string) (snapshot.Status, error)
	Verify(ctx context.Context, dbPath string) (snapshot.Status, error)
	RestoreContext(ctx context.Context, cfg snapshot.RestoreConfig) error
	RestoreFrom(ctx context.Context, r io.Reader, cfg snapshot.RestoreConfig) error
} = (*snapshot.V3Manager)(nil)

// fields are a struct's fields in order, as callers of unkeyed literals and of
// encoding/json see them.
func fields(v any) []string {
	var list []string
	for f := range reflect.TypeOf(v).Fields() {
		list = append(list, fmt.Sprintf("%s %s %q", f.Name, f.Type, f.Tag))
	}
	return list
}

func TestDocumentedFields(t *testing.T) {
	require.Equal(t, []string{
		`Hash uint32 "json:\"hash\""`,
		`Revision int64 "json:\"revision\""`,
		`TotalKey int "json:\"totalKey\""`,
		`TotalSize int64 "json:\"totalSize\""`,
		`Version string "json:\"version\""`,
	}, fields(snapshot.Status{}))
	require.Equal(t, []string{
		`SnapshotPath string ""`,
		`Name string ""`,
		`OutputDataDir string ""`,
		`OutputWALDir string ""`,
		`PeerURLs []string ""`,
		`InitialCluster string ""`,
		`InitialClusterToken string ""`,
		`SkipHashCheck bool ""`,
		`InitialMmapSize uint64 ""`,
		`RevisionBump uint64 ""`,
		`MarkCompacted bool ""`,
		`AllowEmptyDataDir bool ""`,
		`DropAlarms bool ""`,
	}, fields(snapshot.RestoreConfig{}))
	require.Equal(t, []string{
		`Size int64 ""`,
		`SHA256 [32]uint8 ""`,
		`Version string ""`,
		`Took time.Duration ""`,
		`Revision int64 ""`,
	}, fields(snapshot.Saved{}))
}

func TestStatusJSON(t *testing.T) {
	b, err := json.Marshal(snapshot.Status{Hash: 1, Revision: 2, TotalKey: 3, TotalSize: 4, Version: "3.7.0"})
	require.NoError(t, err)
	require.JSONEq(t, `{"hash":1,"revision":2,"totalKey":3,"totalSize":4,"version":"3.7.0"}`, string(b))
}

// Every error is an *Error that says what was done to what, and shows its cause.
func TestError(t *testing.T) {
	_, err := snapshot.New().Status("/does/not/exist")
	var e *snapshot.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "status", e.Op)
	require.Equal(t, "/does/not/exist", e.Path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "snapshot: status /does/not/exist: ")
	require.Equal(t, "snapshot: save: x", (&snapshot.Error{Op: "save", Err: errors.New("x")}).Error())
}

// An error names the call and the snapshot file that it was given.
func TestErrorOfEachCall(t *testing.T) {
	dir := t.TempDir()
	missing, data := filepath.Join(dir, "missing"), filepath.Join(dir, "data")
	core, logged := observer.New(zap.DebugLevel)
	m := snapshot.New(snapshot.WithLogger(zap.New(core)))
	_, status := m.Status(missing)
	_, verify := m.Verify(t.Context(), missing)
	_, saveFile := m.SaveFile(t.Context(), clientv3.Config{}, missing)
	_, saveFrom := m.SaveFrom(t.Context(), nil, missing)
	_, verifyFrom := m.VerifyFrom(t.Context(), bytes.NewReader(nil))
	_, saveTo := m.SaveTo(t.Context(), clientv3.Config{}, io.Discard)
	for _, tt := range []struct {
		op, path string
		err      error
	}{
		{"status", missing, status},
		{"verify", missing, verify},
		{"restore", missing, m.Restore(apitest.Config(missing, data))},
		{"restore", "", m.Restore(snapshot.RestoreConfig{})},
		{"restore", "", m.RestoreFrom(t.Context(), bytes.NewReader(nil), apitest.Config("", data))},
		{"save", missing, m.Save(t.Context(), clientv3.Config{}, missing)},
		{"save", missing, saveFile},
		{"save", missing, saveFrom},
		{"save", "", saveTo},
		{"verify", "", verifyFrom},
	} {
		var e *snapshot.Error
		require.ErrorAs(t, tt.err, &e)
		require.Equal(t, tt.op, e.Op)
		require.Equal(t, tt.path, e.Path)
		require.NotErrorAs(t, e.Err, &e, "wrapped once")
	}
	for _, entry := range logged.All() {
		require.Equal(t, zap.InfoLevel, entry.Level, "an error is returned and not logged: %v", entry)
	}
}

// A restore logs to the logger of its manager what it does and what it has done.
func TestRestoreLogs(t *testing.T) {
	core, logged := observer.New(zap.DebugLevel)
	cfg := apitest.Config(snaptest.SmallFile(t), filepath.Join(t.TempDir(), "data"))
	require.NoError(t, snapshot.NewV3(zap.New(core)).Restore(cfg))
	for _, message := range []string{"restoring snapshot", "restored snapshot"} {
		entries := logged.FilterMessage(message).All()
		require.Len(t, entries, 1, message)
		require.Equal(t, cfg.OutputDataDir, entries[0].ContextMap()["data-dir"])
	}
}

func TestNilLoggerIsSilent(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer func() { require.NoError(t, out.Close()) }()
	stdout, stderr := os.Stdout, os.Stderr
	defer func() { os.Stdout, os.Stderr = stdout, stderr }()
	os.Stdout, os.Stderr = out, out
	for _, m := range []snapshot.Manager{snapshot.NewV3(nil), snapshot.New(snapshot.WithLogger(nil)), snapshot.New()} {
		_, err := m.Status("/does/not/exist")
		require.Error(t, err)
		require.Error(t, m.Restore(snapshot.RestoreConfig{SnapshotPath: "/does/not/exist"}))
		cfg := apitest.Config(snaptest.SmallFile(t), filepath.Join(t.TempDir(), "data"))
		require.NoError(t, m.Restore(cfg))
	}
	written, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	require.Empty(t, string(written))
}

// A zero V3Manager works like one that New made, in every method.
func TestZeroManager(t *testing.T) {
	path := snaptest.SmallFile(t)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(content[:len(content)-32]) })
	var zero snapshot.V3Manager
	for name, m := range map[string]apitest.Manager{
		"zero":        &zero,
		"New(nil)":    snapshot.New(nil),
		"nil options": snapshot.New(nil, snapshot.WithLogger(nil), nil, snapshot.WithProgress(nil)),
		"NewV3(nil)":  snapshot.NewV3(nil).(apitest.Manager),
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
			_, err = m.SaveFile(t.Context(), cfg, saved)
			require.NoError(t, err)
			cli, err := clientv3.New(s.ClientConfig())
			require.NoError(t, err)
			_, err = m.SaveFrom(t.Context(), cli, saved)
			require.NoError(t, err)
			require.NoError(t, cli.Close())
			_, err = m.VerifyFrom(t.Context(), bytes.NewReader(content))
			require.NoError(t, err)

			want, err := m.Status(path)
			require.NoError(t, err)
			st, err := m.StatusContext(t.Context(), saved)
			require.NoError(t, err)
			require.Equal(t, want, st)
			st, err = m.Verify(t.Context(), saved)
			require.NoError(t, err)
			require.Equal(t, want, st)

			require.NoError(t, m.Restore(apitest.Config(path, filepath.Join(dir, "a"))))
			require.NoError(t, m.RestoreContext(t.Context(), apitest.Config(path, filepath.Join(dir, "b"))))
			require.NoError(t, m.RestoreFrom(t.Context(), bytes.NewReader(content), apitest.Config("", filepath.Join(dir, "c"))))
		})
	}
	require.Equal(t, snapshot.V3Manager{}, zero, "changed by its methods")
}
