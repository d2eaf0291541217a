// Package trailer reads and checks the checksum at the end of an etcd snapshot: the
// SHA-256 of the database, 32 bytes, appended to it.
//
// A database is a whole number of pages, hence of 512-byte sectors, so a file has a
// trailer if and only if its size is 32 bytes more than a multiple of 512. A db file
// copied out of a data directory has none.
package trailer

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"etcd.example/snapshot/internal/fault"
)

const (
	// Size is the size of a trailer in bytes.
	Size = sha256.Size
	// Sector divides the size in bytes of every database.
	Sector = 512
)

// Present reports whether a snapshot of size bytes ends in a trailer.
func Present(size int64) bool {
	return size > 0 && size%Sector == Size
}

// Read returns the trailer of a snapshot of size bytes. The error is
// [fault.ErrNoTrailer] if it has none, and io.ErrUnexpectedEOF if r is shorter than
// size.
func Read(r io.ReaderAt, size int64) ([Size]byte, error) {
	var t [Size]byte
	if !Present(size) {
		return t, missing(size)
	}
	n, err := r.ReadAt(t[:], size-Size)
	if n == Size {
		return t, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return [Size]byte{}, fmt.Errorf("read trailer: %w", err)
}

// Digest is the checksum that a [Writer] computed, and the trailer that it found.
type Digest struct {
	Size    int64      // bytes of the database, without the trailer
	Sum     [Size]byte // SHA-256 of those bytes
	Present bool       // whether a trailer follows them
	Trailer [Size]byte // the trailer, zero if not Present
}

// Check returns nil if the trailer matches the checksum, [fault.ErrNoTrailer] if
// there is no trailer, and otherwise a [fault.ErrChecksum] with both checksums.
func (d Digest) Check() error {
	if !d.Present {
		return missing(d.Size)
	}
	if d.Sum != d.Trailer {
		return fmt.Errorf("%w: got %x, want %x", fault.ErrChecksum, d.Sum, d.Trailer)
	}
	return nil
}

func missing(size int64) error {
	return fmt.Errorf("%w (%d bytes)", fault.ErrNoTrailer, size)
}

// Writer takes a snapshot of unknown size, writes the database to another writer and
// computes its checksum. It keeps the last 32 bytes until Finish, because they may
// be the trailer. A Writer is for one goroutine.
type Writer struct {
	w    io.Writer
	hash hash.Hash
	size int64 // bytes written to w
	held [Size]byte
	n    int // bytes held
	err  error
}

// NewWriter returns a Writer that writes the database to w. Use io.Discard to
// compute the checksum alone.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, hash: sha256.New()}
}

// Write takes the next bytes of the snapshot. The errors are those of the
// underlying writer; the first one is returned from then on.
func (t *Writer) Write(p []byte) (int, error) {
	if t.err != nil {
		return 0, t.err
	}
	surplus := t.n + len(p) - Size
	if surplus <= 0 {
		t.n += copy(t.held[t.n:], p)
		return len(p), nil
	}
	if fromHeld := min(surplus, t.n); fromHeld > 0 {
		if err := t.pass(t.held[:fromHeld]); err != nil {
			return 0, err
		}
		t.n = copy(t.held[:], t.held[fromHeld:t.n])
		surplus -= fromHeld
	}
	if surplus > 0 {
		if err := t.pass(p[:surplus]); err != nil {
			return 0, err
		}
	}
	t.n += copy(t.held[t.n:], p[surplus:])
	return len(p), nil
}

// Finish ends the snapshot. If its size shows that it has no trailer, the bytes kept
// belong to the database, and Finish writes them. The error is that of the
// underlying writer. Finish does not compare the checksum: [Digest.Check] does.
func (t *Writer) Finish() (Digest, error) {
	if t.err != nil {
		return Digest{}, t.err
	}
	d := Digest{Present: t.n == Size && Present(t.size+Size)}
	if d.Present {
		d.Trailer = t.held
	} else if err := t.pass(t.held[:t.n]); err != nil {
		return Digest{}, err
	}
	t.n = 0
	d.Size = t.size
	t.hash.Sum(d.Sum[:0])
	return d, nil
}

func (t *Writer) pass(p []byte) error {
	n, err := t.w.Write(p)
	if err == nil && n != len(p) {
		err = io.ErrShortWrite
	}
	if err != nil {
		t.err = err
		return err
	}
	t.hash.Write(p)
	t.size += int64(len(p))
	return nil
}
