package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/keyspace"
	"etcd.example/snapshot/internal/schema"
)

// lastRevision returns the main revision of the last key of bucket "key" in the
// database of size bytes, 0 if there is none. A damaged database is 0 too: the
// checksum has matched, so it is what the server has. An error is that of a read or
// of ctx.
func lastRevision(ctx context.Context, r io.ReaderAt, size int64) (int64, error) {
	revision, err := lastKey(ctx, &budget{ReaderAt: r, left: maxRevisionReads}, size)
	if errors.Is(err, fault.ErrCorrupt) || errors.Is(err, fault.ErrByteOrder) {
		return 0, nil
	}
	return revision.Main, err
}

func lastKey(ctx context.Context, r io.ReaderAt, size int64) (keyspace.Revision, error) {
	db, err := boltfile.Open(r, size)
	if err != nil {
		return keyspace.Revision{}, err
	}
	key, err := db.LastKey(ctx, schema.BucketKey)
	if err != nil || key == nil {
		return keyspace.Revision{}, err
	}
	return keyspace.ParseRevision(key)
}

// maxRevisionReads is how many bytes are read for the revision. A sound database
// needs some hundred KiB. A lying server can send one whose right edge is as long as
// the file: its structure has not been checked.
const maxRevisionReads = 4 << 20

// budget ends the reads of a database after so many bytes.
type budget struct {
	io.ReaderAt
	left int64
}

// ReadAt implements [io.ReaderAt].
func (b *budget) ReadAt(p []byte, off int64) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, fmt.Errorf("%w: the last key is not within %d bytes of pages", fault.ErrCorrupt, maxRevisionReads)
	}
	return b.ReaderAt.ReadAt(p, off)
}
