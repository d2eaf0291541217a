package snapshot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/trailer"
)

const (
	// copyPiece is how many bytes the kernel copies at a time.
	copyPiece = 8 << 20
	// copyBuffer is how many bytes are read at a time where it cannot.
	copyBuffer = 1 << 20
	// hashBuffer is how many bytes are read back and hashed at a time.
	hashBuffer = 256 << 10
)

// fileCopy copies a snapshot file without its trailer. The kernel copies on one
// processor while what it has written is read back and hashed on another.
type fileCopy struct {
	fs       durable.FS
	src      durable.File
	size     int64 // of the snapshot, with a trailer if it has one
	dst      durable.File
	skipHash bool

	plain []byte // buffer, once the kernel has refused to copy
}

// run is a copyFunc. Hashing goes on while the digest is not waited for.
func (c *fileCopy) run(ctx context.Context, mt *meter) (int64, func() error, error) {
	size := c.size
	if trailer.Present(size) {
		size -= trailer.Size
	}
	follow := c.hashBehind(ctx)
	if err := c.copyPieces(ctx, size, mt, follow.copied); err != nil {
		_, hashErr := follow.end()
		return 0, nil, joinCauses(err, hashErr)
	}
	mt.finish()
	return size, func() error {
		sum, err := follow.end()
		if err != nil || c.skipHash {
			return err
		}
		return c.compare(sum, size)
	}, nil
}

func (c *fileCopy) compare(sum [trailer.Size]byte, size int64) error {
	want, err := trailer.Read(c.src, c.size)
	if err != nil {
		return truncated(err)
	}
	if sum != want {
		return explainShort(fmt.Errorf("%w: got %x, want %x", ErrChecksum, sum, want), c.dst, size)
	}
	return nil
}

// copyPieces copies size bytes and tells how far it has come. It asks for
// write-back piece by piece, so that the sync at the end finds little to do.
func (c *fileCopy) copyPieces(ctx context.Context, size int64, mt *meter, copied func(end int64)) error {
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := c.copyPiece(off, min(copyPiece, size-off))
		if err != nil {
			return fmt.Errorf("copy at byte %d of %d: %w", off, size, err)
		}
		if err := c.fs.StartWriteback(c.dst, off, n); err != nil {
			return fmt.Errorf("start write-back: %w", err)
		}
		off += n
		mt.add(n)
		copied(off)
	}
	return nil
}

// copyPiece copies up to n bytes at off, by the kernel if it can.
func (c *fileCopy) copyPiece(off, n int64) (int64, error) {
	if c.plain == nil {
		copied, err := c.fs.CopyRange(c.dst, off, c.src, off, n)
		switch {
		case err != nil && !errors.Is(err, errors.ErrUnsupported):
			return 0, err
		case err == nil && copied > 0:
			return copied, nil
		}
		c.plain = make([]byte, copyBuffer)
	}
	buf := c.plain[:min(n, copyBuffer)]
	if read, err := c.src.ReadAt(buf, off); read < len(buf) {
		return 0, truncated(err)
	}
	written, err := c.dst.WriteAt(buf, off)
	if err == nil && written < len(buf) {
		err = io.ErrShortWrite
	}
	return int64(written), err
}

// follower hashes what has been copied, reading it back.
type follower struct {
	copied func(end int64)
	end    func() (sum [trailer.Size]byte, err error)
}

// hashBehind starts a follower, whose end must be called. Without a hash to
// check it does nothing.
func (c *fileCopy) hashBehind(ctx context.Context) follower {
	if c.skipHash {
		return follower{
			copied: func(int64) {},
			end:    func() (sum [trailer.Size]byte, err error) { return sum, nil },
		}
	}
	// Room for every piece, so that copying never waits for hashing.
	ends := make(chan int64, c.size/copyBuffer+1)
	done := make(chan error, 1)
	h := sha256.New()
	go func() { done <- hashUpTo(ctx, h, c.dst, ends) }()
	return follower{
		copied: func(end int64) { ends <- end },
		end: func() ([trailer.Size]byte, error) {
			close(ends)
			err := <-done
			return [trailer.Size]byte(h.Sum(nil)), err
		},
	}
}

// hashUpTo hashes r from its beginning up to each of the offsets that come. It
// takes them all even after an error.
func hashUpTo(ctx context.Context, h hash.Hash, r io.ReaderAt, ends <-chan int64) (err error) {
	buf := make([]byte, hashBuffer)
	off := int64(0)
	for end := range ends {
		for off < end && err == nil {
			if err = ctx.Err(); err != nil {
				break
			}
			p := buf[:min(hashBuffer, end-off)]
			n, readErr := r.ReadAt(p, off)
			_, _ = h.Write(p[:n])
			off += int64(n)
			if n < len(p) {
				err = fmt.Errorf("read back at byte %d: %w", off, readErr)
			}
		}
	}
	return err
}

// streamCopy copies a snapshot from a reader, and cuts its trailer off.
type streamCopy struct {
	fs       durable.FS
	src      io.Reader
	dst      durable.File
	skipHash bool
}

// maxEmptyReads is after how many reads without a byte or an error a reader is
// given up.
const maxEmptyReads = 100

// run is a copyFunc.
func (c *streamCopy) run(ctx context.Context, mt *meter) (int64, func() error, error) {
	blocks := newBlockWriter(&writebackWriter{fs: c.fs, f: c.dst})
	defer blocks.abandon()
	for empty := 0; ; {
		if err := ctx.Err(); err != nil {
			return 0, nil, err
		}
		n, err := c.src.Read(blocks.room())
		mt.add(int64(n))
		if blocks.filled(n) {
			if _, err := blocks.flush(); err != nil {
				return 0, nil, err
			}
		}
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return 0, nil, truncated(fmt.Errorf("read snapshot: %w", err))
		}
		if empty++; n > 0 {
			empty = 0
		} else if empty == maxEmptyReads {
			return 0, nil, fmt.Errorf("read snapshot: %w", io.ErrNoProgress)
		}
	}
	digest := blocks.digest()
	if err := blocks.write(); err != nil {
		return 0, nil, err
	}
	if digest.Present {
		if err := c.dst.Truncate(digest.Size); err != nil {
			return 0, nil, fmt.Errorf("cut trailer: %w", err)
		}
	}
	if !c.skipHash {
		if err := digest.Check(); err != nil {
			return 0, nil, explainShort(trailerError(err), c.dst, digest.Size)
		}
	}
	mt.finish()
	return digest.Size, func() error { return nil }, nil
}

// explainShort adds to err that the database ends before the size that its meta
// page tells, if that is so.
func explainShort(err error, r io.ReaderAt, size int64) error {
	var short *boltfile.ShortError
	if _, open := boltfile.Open(r, size); errors.As(open, &short) {
		return fmt.Errorf("%w: %w: %w", err, ErrTruncated, short)
	}
	return err
}
