package snapfile

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/meter"
	"etcd.example/snapshot/internal/trailer"
)

// maxEmptyReads is how many reads in a row may return neither a byte nor an error.
const maxEmptyReads = 100

// RequireDatabaseIn is [RequireDatabase] for the first block of a stream.
func RequireDatabaseIn(block []byte) error {
	return RequireDatabase(bytes.NewReader(block), int64(len(block)))
}

// ReadStream passes everything to blocks, up to the end of the reader. It reads on
// the calling goroutine. It passes the first block, if the stream is that long, to
// first before it flushes it, and ends with the error of that. An end of the stream
// within something that the reader decodes is a [fault.ErrTruncated].
func ReadStream(ctx context.Context, r io.Reader, blocks *trailer.BlockWriter, m *meter.Meter, first func(block []byte) error) error {
	for empty, begun := 0, false; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		space := blocks.Space()
		n, err := r.Read(space)
		if n < 0 || n > len(space) {
			return fmt.Errorf("read snapshot: a reader returned %d bytes for %d", n, len(space))
		}
		m.Add(int64(n))
		if err := ctx.Err(); err != nil { // write nothing more
			return err
		}
		if blocks.Filled(n) {
			if !begun {
				if err := first(blocks.Block()); err != nil {
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
