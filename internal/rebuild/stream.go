package rebuild

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/meter"
	"etcd.example/snapshot/internal/snapfile"
	"etcd.example/snapshot/internal/trailer"
)

// maxEmptyReads is how many reads in a row may return neither a byte nor an error.
const maxEmptyReads = 100

// streamSource copies a snapshot from a reader, and cuts its trailer off. Nothing
// continues after copyTo.
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
	if err := s.read(ctx, blocks, m); err != nil {
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
		if !digest.Present {
			return 0, snapfile.NoTrailer("stream", dst, digest.Size)
		}
		if err := digest.Check(); err != nil {
			return 0, snapfile.Explain(err, dst, digest.Size)
		}
	}
	m.Finish()
	return digest.Size, nil
}

// read passes everything to blocks, up to the end of the reader. It refuses a
// stream that is not a database after the first block.
func (s *streamSource) read(ctx context.Context, blocks *trailer.BlockWriter, m *meter.Meter) error {
	for empty, begun := 0, false; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		space := blocks.Space()
		n, err := s.reader.Read(space)
		if n < 0 || n > len(space) {
			return fmt.Errorf("read snapshot: a reader returned %d bytes for %d", n, len(space))
		}
		m.Add(int64(n))
		if err := ctx.Err(); err != nil { // write nothing more
			return err
		}
		if blocks.Filled(n) {
			if !begun {
				if err := snapfile.RequireDatabase(bytes.NewReader(blocks.Block()), int64(len(blocks.Block()))); err != nil {
					return err
				}
				begun = true
			}
			if _, err := blocks.Flush(); err != nil {
				return err
			}
		}
		if err == io.EOF { // not an error that wraps it
			return nil
		}
		if err != nil {
			return fault.Truncated(fmt.Errorf("read snapshot: %w", err))
		}
		if empty++; n > 0 {
			empty = 0
		} else if empty == maxEmptyReads {
			return fmt.Errorf("read snapshot: %w", io.ErrNoProgress)
		}
	}
}
