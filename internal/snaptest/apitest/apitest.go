// Package apitest has functions with which tests of several packages call the API.
package apitest

import (
	clientv3 "go.etcd.io/etcd/client/v3"

	"context"
	"io"

	"go.uber.org/zap"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/fetch"
	"etcd.example/snapshot/internal/meter"
	"etcd.example/snapshot/internal/rebuild"
)

// Manager is the API. [*snapshot.V3Manager] implements it.
type Manager interface {
	snapshot.Manager
	SaveFile(ctx context.Context, cfg clientv3.Config, dbPath string) (snapshot.Saved, error)
	SaveFrom(ctx context.Context, cli *clientv3.Client, dbPath string) (snapshot.Saved, error)
	SaveTo(ctx context.Context, cfg clientv3.Config, w io.Writer) (snapshot.Saved, error)
	VerifyFrom(ctx context.Context, r io.Reader) (snapshot.Saved, error)
	StatusContext(ctx context.Context, dbPath string) (snapshot.Status, error)
	Verify(ctx context.Context, dbPath string) (snapshot.Status, error)
	RestoreContext(ctx context.Context, cfg snapshot.RestoreConfig) error
	RestoreFrom(ctx context.Context, r io.Reader, cfg snapshot.RestoreConfig) error
}

// onFS writes to a file system of the test. The methods that it does not implement
// itself do not write.
type onFS struct {
	Manager
	fsys   durable.FS
	report func(snapshot.Progress)
}

// OnFS returns a Manager that saves and restores on fsys, and otherwise is one of
// snapshot.New. report may be nil.
func OnFS(fsys durable.FS, report func(snapshot.Progress)) Manager {
	return onFS{Manager: snapshot.New(snapshot.WithProgress(report)), fsys: fsys, report: report}
}

func (m onFS) progress(op string) meter.Report {
	if m.report == nil {
		return nil
	}
	return func(phase meter.Phase, done, total int64) {
		m.report(snapshot.Progress{Op: op, Phase: snapshot.Phase(phase), Done: done, Total: total})
	}
}

func (m onFS) fetch() fetch.Fetch {
	return fetch.Fetch{
		FS: m.fsys, Logger: zap.NewNop(), Report: m.progress("save"),
		ConnectTimeout: snapshot.DefaultConnectTimeout, StallTimeout: snapshot.DefaultStallTimeout,
	}
}

func (m onFS) Save(ctx context.Context, cfg clientv3.Config, dbPath string) error {
	_, err := m.SaveFile(ctx, cfg, dbPath)
	return err
}

func (m onFS) SaveFile(ctx context.Context, cfg clientv3.Config, dbPath string) (snapshot.Saved, error) {
	saved, err := m.fetch().ToFile(ctx, cfg, dbPath)
	return snapshot.Saved(saved), wrap("save", dbPath, err)
}

func (m onFS) SaveFrom(ctx context.Context, cli *clientv3.Client, dbPath string) (snapshot.Saved, error) {
	saved, err := m.fetch().FromClient(ctx, cli, dbPath)
	return snapshot.Saved(saved), wrap("save", dbPath, err)
}

func (m onFS) SaveTo(ctx context.Context, cfg clientv3.Config, w io.Writer) (snapshot.Saved, error) {
	saved, err := m.fetch().ToWriter(ctx, cfg, w)
	return snapshot.Saved(saved), wrap("save", "", err)
}

func (m onFS) rebuild() rebuild.Rebuild {
	return rebuild.Rebuild{FS: m.fsys, Logger: zap.NewNop(), Report: m.progress("restore")}
}

func (m onFS) Restore(cfg snapshot.RestoreConfig) error {
	return m.RestoreContext(context.Background(), cfg)
}

func (m onFS) RestoreContext(ctx context.Context, cfg snapshot.RestoreConfig) error {
	return wrap("restore", cfg.SnapshotPath, m.rebuild().FromFile(ctx, rebuild.Config(cfg)))
}

func (m onFS) RestoreFrom(ctx context.Context, r io.Reader, cfg snapshot.RestoreConfig) error {
	return wrap("restore", "", m.rebuild().FromReader(ctx, r, rebuild.Config(cfg)))
}

func wrap(op, path string, err error) error {
	if err != nil {
		err = &snapshot.Error{Op: op, Path: path, Err: err}
	}
	return err
}

// Quick returns a manager that works on QuickFS.
func Quick(hooks ...durabletest.Hook) Manager {
	return OnFS(QuickFS(hooks...), nil)
}

// QuickFS skips slow operations that tests cannot observe: it does not sync, and
// reserves no space.
func QuickFS(hooks ...durabletest.Hook) *durabletest.FS {
	return durabletest.Wrap(SparseFS{durable.OS}, hooks...).NoSync()
}

// SparseFS reserves no space.
type SparseFS struct{ durable.FS }

func (SparseFS) Allocate(f durable.File, size int64) error { return f.Truncate(size) }

// Config returns a configuration that restores path as the only member of a cluster,
// into dir.
func Config(path, dir string) snapshot.RestoreConfig {
	return snapshot.RestoreConfig{
		SnapshotPath:   path,
		Name:           "m0",
		OutputDataDir:  dir,
		PeerURLs:       []string{"http://127.0.0.1:2380"},
		InitialCluster: "m0=http://127.0.0.1:2380",
	}
}
