package query

import (
	"context"
	"fmt"
	"io"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/crc32c"
	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/keyspace"
	"etcd.example/snapshot/internal/schema"
)

// HashKV is the hash of a key space, as a member answers it.
type HashKV struct {
	Hash            uint32
	Revision        int64
	CompactRevision int64
}

// HashKV returns what a member that has compacted at compactRevision answers to
// HashKV at revision. 0 is the latest revision, and the database's own compacted
// one. A member that has never compacted calls its compact revision -1.
//
// The hash is the CRC-32C over the name of bucket "key", and the keys and values of
// its records up to revision, as in etcd's server/storage/mvcc/hash.go. It leaves
// out each record up to compactRevision that is not the latest one of a key that is
// alive at revision. That goes for a tombstone exactly at compactRevision too, which
// only some versions of etcd keep. If no key is alive at revision, it leaves out each
// record up to compactRevision that the compaction removes.
func (db *Database) HashKV(ctx context.Context, revision, compactRevision int64) (HashKV, error) {
	if err := db.enter(ctx); err != nil {
		return HashKV{}, err
	}
	defer db.leave()
	if compactRevision == 0 {
		compactRevision = db.Compacted
	}
	rev, err := db.revision(revision)
	switch {
	case err != nil:
		return HashKV{}, err
	case max(compactRevision, 0) < db.Compacted:
		return HashKV{}, fmt.Errorf("%w: compact revision %d, the snapshot is compacted at %d: %w",
			fault.ErrCompacted, compactRevision, db.Compacted, rpctypes.ErrCompacted)
	case rev < compactRevision:
		return HashKV{}, fmt.Errorf("%w: revision %d is below the compact revision %d: %w",
			fault.ErrCompacted, rev, compactRevision, rpctypes.ErrCompacted)
	}
	h := &hasher{db: db, revision: rev, compacted: compactRevision, index: db.Index, indexed: db.Current}
	if err := h.run(ctx); err != nil {
		return HashKV{}, err
	}
	return HashKV{Hash: h.sum, Revision: rev, CompactRevision: compactRevision}, nil
}

// hasher computes one HashKV. A piece of which every record counts has its checksum
// from Open. The others are read again.
type hasher struct {
	db        *Database
	revision  int64
	compacted int64
	index     *keyspace.Index // of the keys alive at indexed
	indexed   int64

	mu   sync.Mutex
	sums map[int]sum // of the pieces that were read again
	sum  uint32
}

// sum is a checksum of some bytes.
type sum struct {
	crc  uint32
	size int64
}

func (s *sum) add(b []byte) {
	s.crc = crc32c.Update(s.crc, b)
	s.size += int64(len(b))
}

func (s *sum) Write(b []byte) (int, error) {
	s.add(b)
	return len(b), nil
}

func (s *sum) append(other sum) {
	s.crc = crc32c.Combine(s.crc, other.crc, other.size)
	s.size += other.size
}

func (h *hasher) run(ctx context.Context) error {
	pieces := h.db.upTo(h.revision)
	var again []int
	for _, i := range pieces {
		if p := h.db.Pieces[i]; p.First.Main <= h.compacted || p.Last.Main > h.revision {
			again = append(again, i)
		}
	}
	if len(again) > 0 && h.db.Pieces[again[0]].First.Main <= h.compacted {
		if err := h.chooseIndex(ctx); err != nil {
			return err
		}
	}
	h.sums = make(map[int]sum)
	if len(again) > 0 {
		pass := boltfile.Options{Visit: func(_ boltfile.Bucket, piece int) boltfile.Visitor { return h.visitor(piece) }}
		if err := h.db.records.Visit(ctx, again, pass); err != nil {
			return err
		}
	}
	total := sum{}
	total.add([]byte(schema.BucketKey))
	for _, i := range pieces {
		s, ok := h.sums[i]
		if !ok {
			s = sum{h.db.Pieces[i].Sum, h.db.Pieces[i].Size}
		}
		total.append(s)
	}
	h.sum = total.crc
	return ctx.Err()
}

// chooseIndex indexes the keys that are alive at the revision. If none is, a member
// leaves out only what its compaction has removed.
func (h *hasher) chooseIndex(ctx context.Context) (err error) {
	for _, rev := range []int64{h.revision, h.compacted} {
		if h.indexed != rev {
			if h.index, err = h.db.indexAt(ctx, rev); err != nil {
				return err
			}
			h.indexed = rev
		}
		if h.index.Len() > 0 {
			break
		}
	}
	return nil
}

// indexAt indexes the keys that are alive at a revision.
func (db *Database) indexAt(ctx context.Context, revision int64) (*keyspace.Index, error) {
	c := keyspace.NewCounter(ctx)
	defer c.Close()
	feeds := sync.Pool{New: func() any { return c.NewFeed() }}
	pass := boltfile.Options{Visit: func(_ boltfile.Bucket, piece int) boltfile.Visitor {
		feed := feeds.Get().(*keyspace.Feed)
		feed.Begin(piece)
		return &entries{
			each: func(e *entry) error {
				if e.revision.Main <= revision {
					feed.Add(c.Fingerprint(e.Key), e.revision.Tombstone)
				}
				return nil
			},
			done: func() error {
				feed.End()
				feeds.Put(feed)
				return nil
			},
		}
	}}
	if err := db.records.Visit(ctx, db.upTo(revision), pass); err != nil {
		return nil, err
	}
	if _, err := c.Live(); err != nil {
		return nil, err
	}
	return c.Index(ctx)
}

// visitor sums the records of a piece that count. Whether one up to the compact
// revision is the latest of its key shows at the end of the piece.
func (h *hasher) visitor(piece int) boltfile.Visitor {
	type record struct {
		sum
		key       keyspace.Fingerprint
		compacted bool // it counts only if it is the latest of its key
	}
	var records []record
	latest := make(map[keyspace.Fingerprint]int)
	return &entries{
		each: func(e *entry) error {
			if e.revision.Main > h.revision {
				return nil
			}
			r := record{key: h.index.Fingerprint(e.Key), compacted: e.revision.Main <= h.compacted}
			if e.revision.Main <= h.indexed {
				latest[r.key] = len(records)
			}
			r.add(e.key)
			r.add(e.value)
			if e.large != nil {
				if _, err := io.Copy(&r.sum, io.NewSectionReader(e.large, 0, e.large.Size())); err != nil {
					return err
				}
			}
			records = append(records, r)
			return nil
		},
		done: func() error {
			var total sum
			for i, r := range records {
				if r.compacted {
					if p, alive := h.index.Piece(r.key); !alive || p != piece || latest[r.key] != i {
						continue
					}
				}
				total.append(r.sum)
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			h.sums[piece] = total
			return nil
		},
	}
}
