package snapshot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"runtime"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/trailer"
)

// Status is what there is to know about a snapshot file.
type Status struct {
	// Hash is the CRC-32C over the names and entries of all buckets.
	Hash uint32 `json:"hash"`
	// Revision is the latest revision of the key space, 0 when it is empty.
	Revision int64 `json:"revision"`
	// TotalKey is the number of live keys: those whose last change is not a
	// deletion.
	TotalKey int `json:"totalKey"`
	// TotalSize is the size of the database in bytes, without the trailer.
	TotalSize int64 `json:"totalSize"`
	// Version is the storage version, empty before etcd 3.6.
	Version string `json:"version"`
}

// Status says what is in the snapshot file, or the copied db file, at dbPath.
// See [V3Manager.StatusContext].
func (m *V3Manager) Status(dbPath string) (Status, error) {
	return m.StatusContext(context.Background(), dbPath)
}

// StatusContext says what is in the snapshot file, or the copied db file, at
// dbPath. It reads the pages in use once, on all processors, and checks the
// structure of the database on the way, more strictly than bbolt's own checker.
// It does not compare the digest in the trailer: that is [V3Manager.Verify].
//
// A symbolic link is followed. The file is locked for reading meanwhile and
// never written to. Errors: [ErrCorrupt] with the page and the reason, together
// with [ErrTruncated] when the file ends before its database does; [ErrInUse]
// when a running etcd holds the file; an error for what is not a regular file;
// fs.ErrNotExist and the like; the context's error, within 100 ms of its end.
// On an error the Status is zero.
func (m *V3Manager) StatusContext(ctx context.Context, dbPath string) (st Status, err error) {
	defer wrap("status", dbPath, &err)
	f, size, err := openDatabase(dbPath)
	if err != nil {
		return Status{}, err
	}
	defer func() { _ = f.Close() }() // only read from
	if trailer.Present(size) {
		size -= trailer.Size
	}
	defer boltfile.ReadAhead(ctx, f, size)()

	mt := m.newMeter("status", PhaseRead, size)
	st, err = inspect(ctx, f, size, false, boltfile.Options{Read: mt.add})
	if err != nil {
		return Status{}, err
	}
	mt.finish()
	return st, nil
}

// Verify proves the snapshot file at dbPath: the SHA-256 in its trailer is that
// of its database, the structure of the database is sound, and every record of
// the key space decodes, with revisions that rise and agree with their records.
// The digest and the walk over the pages run side by side; the cost is close to
// that of SHA-256 alone.
//
// Errors are those of [V3Manager.StatusContext], and [ErrNoTrailer] or
// [ErrChecksum]. Where both the digest and the structure are wrong the error
// matches both sentinels and says which page. On an error the Status is zero.
func (m *V3Manager) Verify(ctx context.Context, dbPath string) (st Status, err error) {
	defer wrap("verify", dbPath, &err)
	f, size, err := openDatabase(dbPath)
	if err != nil {
		return Status{}, err
	}
	defer func() { _ = f.Close() }() // only read from
	if !trailer.Present(size) {
		return Status{}, noTrailer(f, size)
	}
	size -= trailer.Size

	defer boltfile.ReadAhead(ctx, f, size)()

	mt := m.newMeter("verify", PhaseRead, size)
	digest := make(chan error, 1)
	go func() { digest <- checkDigest(ctx, f, size, mt.add) }()
	st, err = inspect(ctx, f, size, true, boltfile.Options{Workers: besideDigest()})
	if err := joinCauses(<-digest, err); err != nil {
		return Status{}, err
	}
	mt.finish()
	return st, nil
}

// openDatabase opens a database file with the sentinels of this package.
func openDatabase(path string) (*os.File, int64, error) {
	f, size, err := boltfile.OpenFile(path)
	if errors.Is(err, boltfile.ErrLocked) {
		err = fmt.Errorf("%w: %w", ErrInUse, err)
	}
	return f, size, err
}

// noTrailer is the error for a file of that size, which may have lost its
// trailer together with a part of its database.
func noTrailer(r io.ReaderAt, size int64) error {
	return explainShort(fmt.Errorf("%w: %d bytes are not whole pages and a digest", ErrNoTrailer, size), r, size)
}

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
	want, err := trailer.Read(r, size+trailer.Size)
	if err != nil {
		return truncated(err)
	}
	if got := [trailer.Size]byte(h.Sum(nil)); got != want {
		return fmt.Errorf("%w: got %x, want %x", ErrChecksum, got, want)
	}
	return nil
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

// truncated marks the error of a file that ended, since it was opened, before
// the size it had.
func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", ErrTruncated, err)
	}
	return err
}

// joinCauses returns the errors that are not nil in one line.
func joinCauses(first, second error) error {
	switch {
	case first == nil:
		return second
	case second == nil || first.Error() == second.Error():
		return first
	}
	return fmt.Errorf("%w; %w", first, second)
}
