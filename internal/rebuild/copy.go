package rebuild

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/meter"
	"etcd.example/snapshot/internal/snapfile"
	"etcd.example/snapshot/internal/trailer"
)

// source is where the database comes from.
type source interface {
	// total is the size of the snapshot in bytes, 0 if unknown.
	total() int64
	// copyTo copies the database to f, without its trailer, and returns its size
	// in bytes.
	copyTo(ctx context.Context, f durable.File, m *meter.Meter) (int64, error)
	// hashing reports whether a processor is still busy with the checksum.
	hashing() bool
	// settle waits for what continues after copyTo, the checksum and the start of
	// write-back, and returns the first error.
	settle() error
	// stop ends what still runs. It can be called at any time, and again.
	stop()
}

// copy copies the database into the staging. On return its checksum may be
// unfinished.
func (s *staging) copy(ctx context.Context) (err error) {
	if s.file, err = s.create(filepath.Join(s.snapDir, "db")); err != nil {
		return err
	}
	s.size, err = s.source.copyTo(ctx, s.file, s.Report.Start(meter.Copy, s.source.total()))
	return err
}

// copyBuffer is how many bytes are read at a time if the kernel cannot copy.
const copyBuffer = 1 << 20

// fileSource copies a snapshot file. The kernel copies on one processor; another
// reads the copy back and hashes it:
//
//	file ── copyTo ──> dst ──┬──> start write-back ──────────┐
//	  │                      └──> read back, hash ──┐        ├──> settle
//	  └── trailer ──────────────────────────> compare ───────┘
type fileSource struct {
	fs       durable.FS
	file     *snapfile.File
	skipHash bool

	dst       durable.File
	followers *followers
	hash      *trailer.RangeHash // nil with skipHash
	writeback durable.Pieces
	buffer    []byte // once the kernel has refused to copy
}

func (s *fileSource) copyTo(ctx context.Context, dst durable.File, m *meter.Meter) (int64, error) {
	s.dst = dst
	work := []func(context.Context, int64, int64) error{s.startWriteback}
	if !s.skipHash {
		s.hash = trailer.NewRangeHash(dst)
		work = append(work, s.hashRange)
	}
	s.followers = follow(ctx, work...)
	if err := s.copyPieces(s.followers.ctx, m); err != nil {
		return 0, s.followers.fail(err)
	}
	m.Finish()
	return s.file.Size, nil
}

func (s *fileSource) startWriteback(ctx context.Context, off, end int64) error {
	return durable.StartWriteback(ctx, &s.writeback, s.fs, s.dst, off, end)
}

func (s *fileSource) hashRange(ctx context.Context, off, end int64) error {
	return s.hash.Add(ctx, off, end, nil)
}

func (s *fileSource) total() int64 { return s.file.TotalSize() }

func (s *fileSource) hashing() bool { return s.hash != nil }

func (s *fileSource) settle() error {
	if err := s.followers.wait(); err != nil || s.hash == nil {
		return err
	}
	err := s.hash.Compare(s.file, s.file.Size)
	if errors.Is(err, fault.ErrChecksum) {
		err = snapfile.Explain(err, s.dst, s.file.Size)
	}
	return err
}

func (s *fileSource) stop() {
	if s.followers != nil {
		_ = s.followers.fail(context.Canceled) // whoever stops it has an error already
	}
}

// copyPieces copies piece after piece, with the followers behind it.
func (s *fileSource) copyPieces(ctx context.Context, m *meter.Meter) error {
	defer boltfile.ReadAhead(ctx, s.file.File, s.file.Size)()
	var p durable.Pieces
	for off, size := int64(0), s.file.Size; off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		start := time.Now()
		n, err := s.copyPiece(off, min(p.Next(), size-off))
		if err != nil {
			return fmt.Errorf("copy at byte %d of %d: %w", off, size, err)
		}
		p.Took(n, time.Since(start))
		off += n
		m.Add(n)
		s.followers.advance(off)
	}
	return nil
}

// copyPiece copies up to n bytes at off, by the kernel if it can.
func (s *fileSource) copyPiece(off, n int64) (int64, error) {
	if s.buffer == nil {
		done, err := s.fs.CopyRange(s.dst, off, s.file.File, off, n)
		switch {
		case err != nil && !errors.Is(err, errors.ErrUnsupported):
			return 0, err
		case err == nil && done > 0:
			return done, nil
		}
		s.buffer = make([]byte, copyBuffer)
	}
	buf := s.buffer[:min(n, copyBuffer)]
	if read, err := s.file.ReadAt(buf, off); read < len(buf) {
		return 0, fault.Truncated(err)
	}
	written, err := s.dst.WriteAt(buf, off)
	if err == nil && written < len(buf) {
		err = io.ErrShortWrite
	}
	return int64(written), err
}
