package rebuild

import (
	"context"
	"fmt"
	"io"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/meter"
	"etcd.example/snapshot/internal/snapfile"
	"etcd.example/snapshot/internal/trailer"
)

// streamSource copies a snapshot from a reader, and cuts its trailer off. It refuses
// a stream that is not a database after the first block. Nothing continues after
// copyTo.
type streamSource struct {
	fs       durable.FS
	reader   io.Reader
	skipHash bool
}

func (s *streamSource) hashing() bool { return false }
func (s *streamSource) settle() error { return nil }
func (s *streamSource) stop()         {}
func (s *streamSource) total() int64  { return 0 }

func (s *streamSource) copyTo(ctx context.Context, dst durable.File, m *meter.Meter) (int64, error) {
	blocks := trailer.NewBlockWriter(&durable.WritebackWriter{FS: s.fs, File: dst, Paced: new(durable.Pieces)})
	defer blocks.Close()
	if err := snapfile.ReadStream(ctx, s.reader, blocks, m, snapfile.RequireDatabaseIn); err != nil {
		return 0, err
	}
	digest := blocks.Digest()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := blocks.WriteLast(); err != nil {
		return 0, err
	}
	if digest.Present {
		if err := dst.Truncate(digest.Size); err != nil {
			return 0, fmt.Errorf("cut trailer: %w", err)
		}
	}
	if !s.skipHash {
		if err := snapfile.CheckDigest(digest, dst); err != nil {
			return 0, err
		}
	}
	m.Finish()
	return digest.Size, nil
}
