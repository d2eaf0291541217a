package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"google.golang.org/grpc"

	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/meter"
	"etcd.example/snapshot/internal/trailer"
)

// receiver receives one stream. It trusts nothing but the checksum at the end,
// and writes no more than the server announced at the beginning.
type receiver struct {
	stream grpc.ClientStream
	watch  *watchdog
	report meter.Report

	meter     *meter.Meter
	announced bool
	total     int64  // bytes of the database, as announced
	got       int64  // bytes received
	version   string // storage version of the server
}

// receive writes the snapshot to w. It writes the last block, with the trailer in
// it, when the stream has ended well and the checksum matches. It writes nothing
// after the context has ended, although gRPC still delivers what it received
// before.
func (r *receiver) receive(w io.Writer) (trailer.Digest, error) {
	blocks := trailer.NewBlockWriter(w)
	defer blocks.Close()

	var msg chunk
	defer msg.release()
	for {
		err := r.stream.RecvMsg(&msg)
		if ended := r.ended(); ended != nil && (err == nil || errors.Is(err, io.EOF)) {
			return trailer.Digest{}, ended
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return trailer.Digest{}, r.interrupted(err, msg.malformed)
		}
		if err := r.take(&msg, blocks); err != nil {
			return trailer.Digest{}, err
		}
	}
	r.watch.pause()
	if err := r.complete(); err != nil {
		return trailer.Digest{}, err
	}
	digest := blocks.Digest()
	if err := digest.Check(); err != nil {
		return trailer.Digest{}, err
	}
	if err := r.ended(); err != nil {
		return trailer.Digest{}, err
	}
	if err := blocks.WriteLast(); err != nil {
		return trailer.Digest{}, err
	}
	r.meter.Finish()
	return digest, nil
}

// ended returns an error if the context has ended.
func (r *receiver) ended() error {
	if err := r.watch.ctx.Err(); err != nil {
		return r.interrupted(err, nil)
	}
	return nil
}

// take checks one message and moves its blob into blocks.
func (r *receiver) take(msg *chunk, blocks *trailer.BlockWriter) error {
	if !r.announced {
		if err := r.announce(msg); err != nil {
			return err
		}
	}
	if msg.size == 0 {
		return nil
	}
	r.watch.restart()
	if int64(msg.size) > r.total+trailer.Size-r.got {
		return fmt.Errorf("%w: the server sent at least %d bytes, announced were %d and a trailer of %d",
			fault.ErrCorrupt, r.got+int64(msg.size), r.total, trailer.Size)
	}
	for rest := msg.size; rest > 0; {
		space := blocks.Space()
		n := min(rest, len(space))
		msg.read(space[:n])
		rest -= n
		r.got += int64(n)
		// The block that completes the database waits for the checksum.
		if blocks.Filled(n) && r.got < r.total {
			if err := r.flush(blocks); err != nil {
				return err
			}
		}
	}
	return nil
}

// announce notes how many bytes the server announces. A message without any number
// is no announcement: a server that cannot read its own database sends nothing
// else.
func (r *receiver) announce(msg *chunk) error {
	if msg.size == 0 && msg.remaining == 0 {
		return nil
	}
	blob := uint64(msg.size)
	if msg.remaining > math.MaxInt64-trailer.Size-blob {
		return fmt.Errorf("%w: the server announced %d bytes and %d more", fault.ErrCorrupt, blob, msg.remaining)
	}
	total := int64(msg.remaining + blob)
	if total%trailer.Sector != 0 {
		return fmt.Errorf("%w: the server announced %d bytes, want a multiple of %d", fault.ErrCorrupt, total, trailer.Sector)
	}
	r.announced, r.total, r.version = true, total, msg.version
	r.watch.pause()
	r.meter = r.report.Start(meter.Download, total+trailer.Size)
	r.watch.resume()
	return nil
}

// flush writes a block. The stall clock is paused meanwhile: a slow writer is not a
// silent server.
func (r *receiver) flush(blocks *trailer.BlockWriter) error {
	if err := r.ended(); err != nil {
		return err
	}
	r.watch.pause()
	defer r.watch.restart()
	n, err := blocks.Flush()
	r.meter.Add(int64(n))
	return err
}

// complete returns an error if a stream that ended well has not sent everything.
func (r *receiver) complete() error {
	switch {
	case !r.announced:
		return fmt.Errorf("%w: the server sent nothing", fault.ErrTruncated)
	case r.got == r.total:
		return fmt.Errorf("%w: the server sent the %d bytes that it announced and no checksum", fault.ErrNoTrailer, r.total)
	case r.got != r.total+trailer.Size:
		return r.truncated()
	}
	return nil
}

func (r *receiver) truncated() error {
	if r.got >= r.total {
		return fmt.Errorf("%w: got %d bytes of the trailer, want %d", fault.ErrTruncated, r.got-r.total, trailer.Size)
	}
	return fmt.Errorf("%w: got %d bytes of %d announced", fault.ErrTruncated, r.got, r.total)
}

// interrupted explains why a stream ended badly. gRPC reports a malformed message
// only as text.
func (r *receiver) interrupted(err, malformed error) error {
	if malformed != nil && r.watch.ctx.Err() == nil {
		return fmt.Errorf("%w: after %d bytes: %w", fault.ErrCorrupt, r.got, malformed)
	}
	err = r.watch.explain(err)
	switch {
	case !r.announced:
		return err
	case errors.Is(err, fault.ErrStalled), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("got %d bytes of %d announced: %w", r.got, r.total, err)
	case r.got == r.total+trailer.Size:
		return fmt.Errorf("after the trailer: %w", err)
	default:
		return fmt.Errorf("%w: %w", r.truncated(), err)
	}
}
