package snapshot

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"runtime"

	"etcd.example/snapshot/internal/trailer"
)

// besideDigest is the number of workers of a scan that leaves one processor to
// the digest: SHA-256 cannot be divided, so what keeps it waiting takes as much
// longer.
func besideDigest() int { return max(1, runtime.GOMAXPROCS(0)-1) }

// digestBuffer is how many bytes are read and hashed at a time.
const digestBuffer = 1 << 20

// checkDigest compares the SHA-256 of the first size bytes with the 32 bytes
// that follow.
func checkDigest(ctx context.Context, r io.ReaderAt, size int64, read func(int64)) error {
	h := newRangeHash(r)
	if err := h.add(ctx, 0, size, read); err != nil {
		return err
	}
	return h.compare(r, size)
}

// rangeHash hashes a database range by range.
type rangeHash struct {
	hash.Hash
	r   io.ReaderAt
	buf []byte
}

func newRangeHash(r io.ReaderAt) *rangeHash {
	return &rangeHash{Hash: sha256.New(), r: r, buf: make([]byte, digestBuffer)}
}

// add hashes the bytes from off to end, and tells how many it has.
func (h *rangeHash) add(ctx context.Context, off, end int64, read func(int64)) error {
	for off < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := h.buf[:min(int64(len(h.buf)), end-off)]
		n, err := h.r.ReadAt(p, off)
		if n < len(p) {
			return truncated(fmt.Errorf("hash database: byte %d: %w", off+int64(n), err))
		}
		_, _ = h.Write(p) // a hash never fails
		off += int64(n)
		read(int64(n))
	}
	return nil
}

// compare compares the digest of what was added with the trailer that follows
// the first size bytes of a snapshot.
func (h *rangeHash) compare(snapshot io.ReaderAt, size int64) error {
	want, err := trailer.Read(snapshot, size+trailer.Size)
	if err != nil {
		return truncated(err)
	}
	return trailer.Digest{Size: size, Sum: [trailer.Size]byte(h.Sum(nil)), Present: true, Trailer: want}.Check()
}
