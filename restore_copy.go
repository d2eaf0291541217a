package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/trailer"
)

// copyBuffer is how many bytes are read at a time where the kernel cannot copy.
const copyBuffer = 1 << 20

// copied is what a copyFunc has done so far.
type copied struct {
	size    int64        // bytes of the database
	hashing bool         // a processor is busy with the digest
	finish  func() error // waits for the outcome of everything; must be called, once or more often
}

// fileCopy copies a snapshot file without its trailer. The kernel copies on one
// processor while what it has written is read back and hashed on another.
type fileCopy struct {
	fs       durable.FS
	src      durable.File
	size     int64 // of the snapshot, with a trailer if it has one
	dst      durable.File
	skipHash bool

	plain     []byte // buffer, once the kernel has refused to copy
	writeback pieces
}

// run is a copyFunc.
func (c *fileCopy) run(caller context.Context, mt *meter) (copied, error) {
	size := c.size
	if trailer.Present(size) {
		size -= trailer.Size
	}
	ctx, fail := context.WithCancelCause(caller) // the first to fail ends the others
	followers := []follower{follow(fail, func(from, to int64) error { return c.startWriteback(ctx, from, to) })}
	var digest *rangeHash
	if !c.skipHash {
		digest = newRangeHash(c.dst)
		followers = append(followers, follow(fail, func(from, to int64) error {
			return digest.add(ctx, from, to, func(int64) {})
		}))
	}
	finish := sync.OnceValue(func() error {
		for _, f := range followers {
			f.end()
		}
		defer fail(nil)
		if caller.Err() != nil {
			return caller.Err()
		}
		return context.Cause(ctx)
	})
	handedOver := false
	defer func() {
		if !handedOver { // also where a report panics
			fail(context.Canceled)
			_ = finish() // returned already
		}
	}()
	err := c.copyPieces(ctx, size, mt, func(end int64) {
		for _, f := range followers {
			f.upTo(end)
		}
	})
	if err != nil {
		fail(err)
		return copied{}, finish()
	}
	mt.finish()
	handedOver = true
	return copied{size: size, hashing: !c.skipHash, finish: sync.OnceValue(func() error {
		if err := finish(); err != nil || c.skipHash {
			return err
		}
		err := digest.compare(c.src, size)
		if errors.Is(err, ErrChecksum) {
			err = explain(err, c.dst, size)
		}
		return err
	})}, nil
}

// copyPieces copies size bytes and tells how far it has come.
func (c *fileCopy) copyPieces(ctx context.Context, size int64, mt *meter, done func(end int64)) error {
	defer boltfile.ReadAhead(ctx, c.src, size)()
	var p pieces
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		start := time.Now()
		n, err := c.copyPiece(off, min(p.next(), size-off))
		if err != nil {
			return fmt.Errorf("copy at byte %d of %d: %w", off, size, err)
		}
		p.took(n, time.Since(start))
		off += n
		mt.add(n)
		done(off)
	}
	return nil
}

// copyPiece copies up to n bytes at off, by the kernel if it can.
func (c *fileCopy) copyPiece(off, n int64) (int64, error) {
	if c.plain == nil {
		done, err := c.fs.CopyRange(c.dst, off, c.src, off, n)
		switch {
		case err != nil && !errors.Is(err, errors.ErrUnsupported):
			return 0, err
		case err == nil && done > 0:
			return done, nil
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

// startWriteback asks for the write-back of what has been copied. It waits where
// the queue of the disk is full.
func (c *fileCopy) startWriteback(ctx context.Context, off, end int64) error {
	return c.writeback.each(ctx, off, end, func(off, n int64) error {
		if err := c.fs.StartWriteback(c.dst, off, n); err != nil {
			return fmt.Errorf("start write-back: %w", err)
		}
		return nil
	})
}

// follower does something with what has been copied, on a goroutine of its own.
type follower struct {
	far  *atomic.Int64 // how far copying has come
	wake chan struct{} // when it has come farther, with room for one
	done chan struct{}
}

// follow starts a follower, whose end must be called. It does one range after
// the other; an error goes to fail, which ends the context of do. Copying never
// waits for it.
func follow(fail context.CancelCauseFunc, do func(from, to int64) error) follower {
	f := follower{far: new(atomic.Int64), wake: make(chan struct{}, 1), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		from := int64(0)
		for range f.wake {
			to := f.far.Load()
			if from < to {
				if err := do(from, to); err != nil {
					fail(err) // and do, from now on, at once
				}
			}
			from = to
		}
	}()
	return f
}

// upTo says how far copying has come.
func (f follower) upTo(end int64) {
	f.far.Store(end)
	select {
	case f.wake <- struct{}{}:
	default: // it will look
	}
}

// end waits until everything is done. It is called once, after the last upTo.
func (f follower) end() {
	close(f.wake)
	<-f.done
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
func (c *streamCopy) run(ctx context.Context, mt *meter) (copied, error) {
	blocks := newBlockWriter(&writebackWriter{fs: c.fs, f: c.dst, paced: new(pieces)})
	defer blocks.abandon()
	for empty, begun := 0, false; ; {
		if err := ctx.Err(); err != nil {
			return copied{}, err
		}
		room := blocks.room()
		n, err := c.src.Read(room)
		if n < 0 || n > len(room) {
			return copied{}, fmt.Errorf("read snapshot: a reader returned %d bytes for %d", n, len(room))
		}
		mt.add(int64(n))
		if err := ctx.Err(); err != nil { // nothing is written any more
			return copied{}, err
		}
		if blocks.filled(n) {
			if !begun {
				if err := refuse(bytes.NewReader(blocks.block), int64(len(blocks.block))); err != nil {
					return copied{}, err
				}
				begun = true
			}
			if _, err := blocks.flush(); err != nil {
				return copied{}, err
			}
		}
		if err == io.EOF { // and no error that wraps it
			break
		}
		if err != nil {
			return copied{}, truncated(fmt.Errorf("read snapshot: %w", err))
		}
		if empty++; n > 0 {
			empty = 0
		} else if empty == maxEmptyReads {
			return copied{}, fmt.Errorf("read snapshot: %w", io.ErrNoProgress)
		}
	}
	digest := blocks.digest()
	if err := ctx.Err(); err != nil {
		return copied{}, err
	}
	if err := blocks.write(); err != nil {
		return copied{}, err
	}
	if digest.Present {
		if err := c.dst.Truncate(digest.Size); err != nil {
			return copied{}, fmt.Errorf("cut trailer: %w", err)
		}
	}
	if !c.skipHash {
		if !digest.Present {
			return copied{}, noTrailer("stream", c.dst, digest.Size)
		}
		if err := digest.Check(); err != nil {
			return copied{}, explain(err, c.dst, digest.Size)
		}
	}
	mt.finish()
	return copied{size: digest.Size, finish: func() error { return nil }}, nil
}
