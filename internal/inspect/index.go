package inspect

import (
	"context"
	"io"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/keyspace"
	"etcd.example/snapshot/internal/schema"
)

// Indexed is a database that has been walked once, for reading it again.
type Indexed struct {
	Status  Status
	DB      *boltfile.DB
	Buckets []Bucket
	InUse   int64           // bytes of the pages in use
	Index   *keyspace.Index // of the keys that are alive
	Pieces  []Piece         // of bucket "key"
}

// Bucket is a bucket of the top level.
type Bucket struct {
	boltfile.Bucket
	Entries int64
	Bytes   int64 // of keys and values
}

// Piece is a part of the key space: see [boltfile.BucketReader].
type Piece struct {
	Sum         uint32 // CRC-32C over the entries
	Size        int64  // bytes of the entries
	Found       bool   // it has records
	First, Last keyspace.Revision
	Leased      bool // at least one record belongs to a lease
}

// Open walks the database in the first size bytes of r, checks its structure, and
// indexes its keys.
func Open(ctx context.Context, r io.ReaderAt, size int64, scan boltfile.Options) (*Indexed, error) {
	w := newWalk(ctx, false)
	defer w.counter.Close()
	if err := w.run(ctx, r, size, scan); err != nil {
		return nil, err
	}
	status, err := w.status()
	if err != nil {
		return nil, err
	}
	index, err := w.counter.Index(ctx)
	if err != nil {
		return nil, err
	}
	x := &Indexed{Status: status, DB: w.db, InUse: w.usage.Bytes(), Index: index}
	for i, b := range w.buckets {
		bucket := Bucket{Bucket: b}
		for _, v := range w.pieces[i] {
			bucket.Entries += v.entries
			bucket.Bytes += v.size
			if b.Name == schema.BucketKey {
				x.Pieces = append(x.Pieces, Piece{v.sum, v.size, v.found, v.first, v.last, v.leased})
			}
		}
		x.Buckets = append(x.Buckets, bucket)
	}
	return x, nil
}

// Bucket returns the bucket of a name, if there is one.
func (x *Indexed) Bucket(name string) (Bucket, bool) {
	for _, b := range x.Buckets {
		if b.Name == name {
			return b, true
		}
	}
	return Bucket{}, false
}
