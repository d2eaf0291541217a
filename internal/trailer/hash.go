package trailer

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"

	"etcd.example/snapshot/internal/fault"
)

// hashBuffer is how many bytes are read and hashed at a time.
const hashBuffer = 1 << 20

// CheckFile compares the SHA-256 of the first size bytes of r with the trailer
// that follows them. It calls read with the number of bytes of each read.
func CheckFile(ctx context.Context, r io.ReaderAt, size int64, read func(n int64)) error {
	h := NewRangeHash(r)
	if err := h.Add(ctx, 0, size, read); err != nil {
		return err
	}
	return h.Compare(r, size)
}

// RangeHash computes the SHA-256 of a growing file, range by range. It is for one
// goroutine.
type RangeHash struct {
	hash hash.Hash
	r    io.ReaderAt
	buf  []byte
}

// NewRangeHash returns a RangeHash of r that has hashed no bytes yet.
func NewRangeHash(r io.ReaderAt) *RangeHash {
	return &RangeHash{hash: sha256.New(), r: r, buf: make([]byte, hashBuffer)}
}

// Add hashes the bytes from off to end. It calls read, unless nil, with the number
// of bytes of each read. If the file ends earlier, the error is
// [fault.ErrTruncated].
func (h *RangeHash) Add(ctx context.Context, off, end int64, read func(n int64)) error {
	for off < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := h.buf[:min(int64(len(h.buf)), end-off)]
		n, err := h.r.ReadAt(p, off)
		if n < len(p) {
			return fault.Truncated(fmt.Errorf("hash database: byte %d: %w", off+int64(n), err))
		}
		_, _ = h.hash.Write(p) // a hash never fails
		off += int64(n)
		if read != nil {
			read(int64(n))
		}
	}
	return nil
}

// Compare compares the checksum of the added bytes with the trailer that follows
// the first size bytes of a snapshot.
func (h *RangeHash) Compare(snapshot io.ReaderAt, size int64) error {
	want, err := Read(snapshot, size+Size)
	if err != nil {
		return fault.Truncated(err)
	}
	return Digest{Size: size, Sum: [Size]byte(h.hash.Sum(nil)), Present: true, Trailer: want}.Check()
}
