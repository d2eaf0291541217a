// Package fetch streams one snapshot from one etcd member, and checks it on the
// way.
//
//	newClient ──> openSnapshot ──> receiver ──> trailer.BlockWriter ──> w
//	         watch: ends all of it when there is no connection, or no byte, in time
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/meter"
	"etcd.example/snapshot/internal/trailer"
)

// Fetch says how a snapshot is fetched. All fields must be set, but for Report.
type Fetch struct {
	FS             durable.FS
	Logger         *zap.Logger // unless the Config of the client has one
	Report         meter.Report
	ConnectTimeout time.Duration // 0 or less: any time
	StallTimeout   time.Duration // 0 or less: any time
}

// Saved describes a snapshot that was fetched.
type Saved struct {
	Size    int64              // bytes written, trailer included
	SHA256  [trailer.Size]byte // checksum of the database, as in the trailer
	Version string             // storage version that the server named, empty before etcd 3.6
	Took    time.Duration      // from dialling to the last byte
}

// ToFile writes a snapshot to path, where it appears complete or not at all.
func (f Fetch) ToFile(ctx context.Context, cfg clientv3.Config, path string) (saved Saved, err error) {
	if err := check(ctx, cfg.Endpoints); err != nil {
		return Saved{}, err
	}
	file, err := durable.CreateFile(f.FS, path)
	if err != nil {
		return Saved{}, err
	}
	defer func() {
		if cerr := file.Cleanup(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("clean up: %w", cerr))
		}
	}()
	saved, err = f.stream(ctx, cfg, &durable.WritebackWriter{FS: f.FS, File: file.File(), Drop: true})
	if err != nil {
		return Saved{}, err
	}
	if ctx.Err() != nil { // since the last byte
		return Saved{}, contextError(ctx)
	}
	if err := file.Commit(); err != nil {
		return Saved{}, fmt.Errorf("publish: %w", err)
	}
	f.logger(cfg).Info("saved snapshot", zap.String("path", path), zap.Int64("bytes", saved.Size), zap.Duration("took", saved.Took))
	return saved, nil
}

// ToWriter writes a snapshot to w. The end of it, with the trailer, is written
// when the checksum has matched.
func (f Fetch) ToWriter(ctx context.Context, cfg clientv3.Config, w io.Writer) (Saved, error) {
	if err := check(ctx, cfg.Endpoints); err != nil {
		return Saved{}, err
	}
	return f.stream(ctx, cfg, w)
}

// check looks at what must hold before anything is created or dialled.
func check(ctx context.Context, endpoints []string) error {
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	if n := len(endpoints); n != 1 {
		return fmt.Errorf("%w: got %d", fault.ErrEndpoints, n)
	}
	if endpoints[0] == "" {
		return fmt.Errorf("%w: got an empty one", fault.ErrEndpoints)
	}
	return nil
}

// stream passes one snapshot on to w.
func (f Fetch) stream(ctx context.Context, cfg clientv3.Config, w io.Writer) (Saved, error) {
	start := time.Now()
	watch := newWatchdog(ctx, cfg.Endpoints[0], f.ConnectTimeout, f.StallTimeout)
	defer watch.end()

	client, err := newClient(watch, cfg, f.logger(cfg))
	if err != nil {
		return Saved{}, fmt.Errorf("create client: %w", watch.explain(err))
	}
	defer func() { _ = client.Close() }() // the stream has ended or does not matter
	stream, err := openSnapshot(watch.ctx, client)
	if err != nil {
		return Saved{}, fmt.Errorf("open stream: %w", watch.explain(err))
	}
	f.logger(cfg).Info("fetching snapshot", zap.String("endpoint", cfg.Endpoints[0]))

	r := receiver{stream: stream, watch: watch, report: f.Report}
	digest, err := r.receive(w)
	if err != nil {
		return Saved{}, err
	}
	return Saved{
		Size:    digest.Size + trailer.Size,
		SHA256:  digest.Sum,
		Version: r.version,
		Took:    time.Since(start),
	}, nil
}

func (f Fetch) logger(cfg clientv3.Config) *zap.Logger {
	if cfg.Logger != nil {
		return cfg.Logger
	}
	return f.Logger
}
