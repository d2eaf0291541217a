// Command vectors regenerates testdata/vectors of the library: for each etcd
// release a small snapshot that its own server sent, as it came over the wire,
// and what etcdutl reports for it. No code of this library touches either. Run it
// as
//
//	go run ./vectors
//
// in internal/interop. Every release must be available.
package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	etcdutl "go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"

	"etcd.example/snapshot/internal/interop"
	"etcd.example/snapshot/internal/interop/etcd"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "vectors:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	root, err := etcd.ModuleDir(ctx)
	if err != nil {
		return err
	}
	dir := filepath.Join(root, "..", "..", "testdata", "vectors")
	readme := preamble
	for _, r := range etcd.Releases() {
		v, err := fromServer(ctx, r)
		if err != nil {
			return fmt.Errorf("etcd %s: %w", r.Minor, err)
		}
		if err := v.write(filepath.Join(dir, "v"+r.Minor)); err != nil {
			return err
		}
		readme += fmt.Sprintf("| `v%s` | %s | %d | %d |\n",
			r.Minor, r.Version(), v.status.Revision, v.status.TotalKey)
	}
	return os.WriteFile(filepath.Join(dir, "README.md"), []byte(readme), 0o644)
}

const preamble = `# Snapshots of every supported etcd

` + "`go run ./vectors`" + ` in ` + "`internal/interop`" + ` generates these files with the servers themselves.

- ` + "`snapshot.db.gz`" + `: the stream of the server's Snapshot call, SHA-256 trailer included, compressed. It holds keys
  with many revisions, transactions, deletions, a compaction, values over a page, leases, users and roles with
  authentication on, and the alarm NOSPACE; the server defragmented its database before.
- ` + "`status.json`" + `: what etcdutl 3.7.3 reports for that file.

No code of this library touched either.

| | server | revision | live keys |
|---|---|---|---|
`

// vector is a snapshot and its expected status.
type vector struct {
	snapshot []byte
	status   etcdutl.Status
}

func fromServer(ctx context.Context, r *etcd.Release) (v vector, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "vectors-")
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	port, err := etcd.FreePort()
	if err != nil {
		return v, err
	}
	m, err := etcd.Start(ctx, etcd.Config{
		Release: r,
		Name:    "origin",
		DataDir: filepath.Join(dir, "data"),
		PeerURL: fmt.Sprintf("http://127.0.0.1:%d", port),
	})
	if err != nil {
		return v, err
	}
	defer m.Stop()
	if err := m.Ready(ctx); err != nil {
		return v, err
	}
	if _, err := m.ClusterVersion(ctx); err != nil {
		return v, err
	}
	if err := fill(ctx, m); err != nil {
		return v, err
	}
	m.Username, m.Password = interop.Root, interop.RootPassword
	path := filepath.Join(dir, "snapshot.db")
	if v.snapshot, err = save(ctx, m, path); err != nil {
		return v, err
	}
	v.status, err = etcdutl.NewV3(zap.NewNop()).Status(path)
	return v, err
}

func fill(ctx context.Context, m *etcd.Member) error {
	cli, err := m.Client(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = cli.Close() }()
	return interop.Fill(ctx, cli, interop.Plan{Keys: 300, Rewrites: 40, Values: []int{5000, 20_000}})
}

// save raises the alarm, defragments and stores the stream at path.
func save(ctx context.Context, m *etcd.Member, path string) ([]byte, error) {
	cli, err := m.Client(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = cli.Close() }()
	if err := interop.RaiseAlarm(ctx, cli, pb.AlarmType_NOSPACE); err != nil {
		return nil, err
	}
	if _, err := cli.Defragment(ctx, m.ClientURL); err != nil {
		return nil, fmt.Errorf("defragment: %w", err)
	}
	stream, err := cli.Snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	b, err := io.ReadAll(stream)
	if err = errors.Join(err, stream.Close()); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return b, os.WriteFile(path, b, 0o600)
}

func (v vector) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var packed bytes.Buffer
	zw, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return err
	}
	_, err = zw.Write(v.snapshot)
	if err = errors.Join(err, zw.Close()); err != nil {
		return err
	}
	status, err := json.MarshalIndent(v.status, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "snapshot.db.gz"), packed.Bytes(), 0o644),
		os.WriteFile(filepath.Join(dir, "status.json"), append(status, '\n'), 0o644),
	)
}
