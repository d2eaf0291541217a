package snapshot

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/bootstrap"
	"etcd.example/snapshot/internal/durable"
)

// structure is what is known of a copy that is sound.
type structure struct {
	db       *boltfile.DB
	usage    *boltfile.Usage
	lastPage int64 // bytes in the page with the last record
}

// checkStructure walks through the copy: it must be sound, and the edit of it
// must stay small.
func checkStructure(ctx context.Context, f durable.File, size int64, mt *meter, scan boltfile.Options) (structure, error) {
	db, err := boltfile.Open(f, size)
	if err != nil {
		return structure{}, asCorrupt(err)
	}
	scan.Read = mt.add
	var all rewritten
	scan.Visit = all.visit
	usage, _, err := db.Scan(ctx, scan)
	if err != nil {
		return structure{}, asCorrupt(err)
	}
	mt.finish()
	return structure{db, usage, all.lastPage}, nil
}

// maxRewritten bounds the bytes in the buckets that the edit empties or writes
// to, which bbolt then has in memory. They hold some hundred bytes for each
// member there ever was.
const maxRewritten = 16 << 20

// maxLastPage bounds the bytes in the page to which the bump of a revision adds
// a record. etcd recommends requests of up to 10 MiB.
const maxLastPage = 24 << 20

// rewritten looks at what bbolt will rewrite: those buckets and, with a bump of
// the revision, the page with the last record.
type rewritten struct {
	bytes atomic.Int64

	mu        sync.Mutex
	lastPiece int
	lastPage  int64
}

func (r *rewritten) visit(b boltfile.Bucket, piece int) boltfile.Visitor {
	switch {
	case b.Name == bucketKey:
		return &recordPages{all: r, piece: piece}
	case bootstrap.Rewrites(b.Name):
		return rewrittenBucket{r, b.Name}
	}
	return nil
}

// recordPages follows the leaf pages of a piece of the key space.
type recordPages struct {
	all   *rewritten
	piece int
	page  boltfile.Pgid
	bytes int64 // in it
}

func (p *recordPages) Leaf(l *boltfile.Leaf) error {
	p.page, p.bytes = l.Page(), int64(len(l.Data()))
	return nil
}

func (p *recordPages) Large(page boltfile.Pgid, key []byte, value *io.SectionReader) error {
	if page != p.page {
		p.page, p.bytes = page, 0
	}
	if p.bytes += int64(len(key)); value != nil {
		p.bytes += value.Size()
	}
	return nil
}

func (p *recordPages) Done() error {
	p.all.mu.Lock()
	defer p.all.mu.Unlock()
	if p.piece >= p.all.lastPiece {
		p.all.lastPiece, p.all.lastPage = p.piece, p.bytes
	}
	return nil
}

type rewrittenBucket struct {
	all  *rewritten
	name string
}

func (b rewrittenBucket) add(page boltfile.Pgid, n int64) error {
	if b.all.bytes.Add(n) > maxRewritten {
		return fmt.Errorf("%w: page %d: bucket %q: more than %d MiB in the buckets that a restore rewrites",
			ErrCorrupt, page, b.name, maxRewritten>>20)
	}
	return nil
}

func (b rewrittenBucket) Leaf(l *boltfile.Leaf) error { return b.add(l.Page(), int64(len(l.Data()))) }

func (b rewrittenBucket) Large(page boltfile.Pgid, key []byte, value *io.SectionReader) error {
	if value == nil { // a bucket, which the edit refuses
		return nil
	}
	return b.add(page, int64(len(key))+value.Size())
}

func (b rewrittenBucket) Done() error { return nil }
