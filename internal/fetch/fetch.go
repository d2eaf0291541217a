// Package fetch streams one snapshot from one etcd member, and checks it on the
// way.
//
//	source ──> receiver ──> trailer.BlockWriter ──> w
//	  └── watch: ends all of it when there is no connection, or no byte, in time
//
// A source opens the stream, with a client of its own or one of the caller's.
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

	// Revision of the key space, read from the file. It is 0 if the key space is
	// empty or the database damaged, and of what went to a writer.
	Revision int64
}

// ToFile writes a snapshot to path, where it appears complete or not at all.
func (f Fetch) ToFile(ctx context.Context, cfg clientv3.Config, path string) (Saved, error) {
	if err := check(ctx, cfg.Endpoints); err != nil {
		return Saved{}, err
	}
	return f.toFile(ctx, f.ownClient(cfg), path)
}

// ToWriter writes a snapshot to w. The end of it, with the trailer, is written
// when the checksum has matched.
func (f Fetch) ToWriter(ctx context.Context, cfg clientv3.Config, w io.Writer) (Saved, error) {
	if err := check(ctx, cfg.Endpoints); err != nil {
		return Saved{}, err
	}
	return f.stream(ctx, f.ownClient(cfg), w)
}

// FromClient does what ToFile does, with a client of the caller's, which stays open.
func (f Fetch) FromClient(ctx context.Context, client *clientv3.Client, path string) (Saved, error) {
	if client == nil || client.ActiveConnection() == nil {
		return Saved{}, fmt.Errorf("%w: the client is nil or has no connection", fault.ErrEndpoints)
	}
	endpoints := client.Endpoints()
	if err := check(ctx, endpoints); err != nil {
		return Saved{}, err
	}
	return f.toFile(ctx, f.callersClient(client, endpoints[0]), path)
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

func (f Fetch) toFile(ctx context.Context, src source, path string) (saved Saved, err error) {
	file, err := durable.CreateFile(f.FS, path)
	if err != nil {
		return Saved{}, err
	}
	defer func() {
		if cerr := file.Cleanup(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("clean up: %w", cerr))
		}
	}()
	saved, err = f.stream(ctx, src, &durable.WritebackWriter{FS: f.FS, File: file.File(), Drop: true})
	if err != nil {
		return Saved{}, err
	}
	saved.Revision, err = lastRevision(ctx, file.File(), saved.Size-trailer.Size)
	if ctx.Err() != nil { // since the last byte
		return Saved{}, contextError(ctx)
	}
	if err != nil {
		return Saved{}, fmt.Errorf("read revision: %w", err)
	}
	if err := file.Commit(); err != nil {
		return Saved{}, fmt.Errorf("publish: %w", err)
	}
	src.logger.Info("saved snapshot", zap.String("path", path), zap.Int64("bytes", saved.Size),
		zap.Int64("revision", saved.Revision), zap.Duration("took", saved.Took))
	return saved, nil
}

// stream passes one snapshot on to w.
func (f Fetch) stream(ctx context.Context, src source, w io.Writer) (Saved, error) {
	start := time.Now()
	watch := newWatchdog(ctx, src.endpoint, f.ConnectTimeout, f.StallTimeout)
	defer watch.end()

	stream, release, err := src.open(watch)
	defer release()
	if err != nil {
		return Saved{}, err
	}
	src.logger.Info("fetching snapshot", zap.String("endpoint", src.endpoint))

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
