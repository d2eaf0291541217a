package snapshot

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/bootstrap"
	"etcd.example/snapshot/internal/durable"
)

// checkStructure walks through the copy: it must be sound, and the edit of it
// must stay small.
func checkStructure(ctx context.Context, f durable.File, size int64, mt *meter, scan boltfile.Options) (*boltfile.DB, *boltfile.Usage, error) {
	db, err := boltfile.Open(f, size)
	if err != nil {
		return nil, nil, asCorrupt(err)
	}
	scan.Read = mt.add
	scan.Visit = new(rewritten).visit
	usage, _, err := db.Scan(ctx, scan)
	if err != nil {
		return nil, nil, asCorrupt(err)
	}
	mt.finish()
	return db, usage, nil
}

// maxRewritten bounds the bytes in the buckets that the edit empties or writes
// to, which bbolt then has in memory. They hold some hundred bytes for each
// member there ever was.
const maxRewritten = 16 << 20

// rewritten counts the bytes in those buckets.
type rewritten struct{ bytes atomic.Int64 }

func (r *rewritten) visit(b boltfile.Bucket, _ int) boltfile.Visitor {
	if !bootstrap.Rewrites(b.Name) {
		return nil
	}
	return rewrittenBucket{r, b.Name}
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
