package query

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/keyspace"
)

// Range is a set of keys at a revision, as etcd's RangeRequest names it: key alone
// if end is nil, all keys from key on if end is empty, and otherwise those from key
// up to end.
type Range struct {
	Key, End []byte
	Revision int64 // not 0
}

func (r Range) contains(key []byte) bool {
	if r.End == nil {
		return bytes.Equal(key, r.Key)
	}
	return bytes.Compare(key, r.Key) >= 0 && (len(r.End) == 0 || bytes.Compare(key, r.End) < 0)
}

// from is the range without the keys below key.
func (r Range) from(key []byte) Range {
	r.Key = key
	return r
}

// found is a key of a range, without its value.
type found struct {
	key      []byte
	revision keyspace.Revision
	create   int64
	version  int64
	lease    int64
	size     int64  // bytes of the KeyValue
	record   uint64 // fingerprint of the KeyValue
}

// foundSize is about how many bytes a found takes besides its key.
const foundSize = 104

// maxWindow bounds the bytes of the keys that are collected at a time.
const maxWindow = 32 << 20

// window holds the smallest keys of a range, in order.
type window struct {
	Range
	keys []found
	// next is the smallest key that did not fit, nil if all did.
	next  []byte
	total int // keys in the range, those that did not fit included
}

// collector gathers the keys of a range in one pass over the records.
type collector struct {
	db    *Database
	r     Range
	limit int64 // bytes
	// current: the range is at the current revision, so the index tells which
	// piece holds the latest record of a key.
	current bool

	mu      sync.Mutex
	best    map[string]found // by key
	bytes   int64
	next    []byte // keys from here on are left out; nil: none
	total   int
	counter *keyspace.Counter // counts the keys of an earlier revision
	feeds   []*keyspace.Feed  // idle
}

// collect returns the smallest keys of a range that fit into limit bytes, and how
// many there are in all. A limit of 0 only counts.
func (db *Database) collect(ctx context.Context, r Range, limit int64) (*window, error) {
	c := &collector{db: db, r: r, limit: limit, current: r.Revision == db.Current, best: make(map[string]found)}
	if !c.current {
		c.counter = keyspace.NewCounter(ctx)
		defer c.counter.Close()
	}
	if db.records != nil {
		pass := boltfile.Options{Visit: func(_ boltfile.Bucket, piece int) boltfile.Visitor { return c.visitor(piece) }}
		if err := db.records.Visit(ctx, db.upTo(r.Revision), pass); err != nil {
			return nil, err
		}
	}
	w := &window{Range: r, next: c.next, total: c.total}
	if !c.current {
		live, err := c.counter.Live()
		if err != nil {
			return nil, err
		}
		w.total = live
	}
	for _, f := range c.best {
		if !f.revision.Tombstone {
			w.keys = append(w.keys, f)
		}
	}
	slices.SortFunc(w.keys, func(a, b found) int { return bytes.Compare(a.key, b.key) })
	return w, ctx.Err()
}

// visitor gathers the latest record of each key in one piece.
func (c *collector) visitor(piece int) boltfile.Visitor {
	in := make(map[string]found)
	var feed *keyspace.Feed
	if !c.current {
		feed = c.feed(piece)
	}
	add := func(e *entry) error {
		if e.revision.Main > c.r.Revision || !c.r.contains(e.Key) {
			return nil
		}
		if c.current {
			if p, alive := c.db.Index.Piece(c.db.Index.Fingerprint(e.Key)); !alive || p != piece {
				return nil
			}
		} else {
			feed.Add(c.counter.Fingerprint(e.Key), e.revision.Tombstone)
		}
		f := in[string(e.Key)]
		if f.key == nil {
			f.key = bytes.Clone(e.Key)
		}
		f.revision, f.create, f.version, f.lease, f.size = e.revision, e.CreateRevision, e.Version, e.Lease, e.size()
		if c.limit > 0 {
			var err error
			if f.record, err = e.fingerprint(); err != nil {
				return err
			}
		}
		in[string(f.key)] = f
		return nil
	}
	return &entries{each: add, done: func() error {
		if feed != nil {
			feed.End()
		}
		c.merge(in, feed)
		return nil
	}}
}

// feed begins a piece in a feed that is not in use.
func (c *collector) feed(piece int) *keyspace.Feed {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.feeds) == 0 {
		c.feeds = append(c.feeds, c.counter.NewFeed())
	}
	last := len(c.feeds) - 1
	f := c.feeds[last]
	c.feeds = c.feeds[:last]
	f.Begin(piece)
	return f
}

// merge adds what one piece holds, and keeps its feed for another one.
func (c *collector) merge(in map[string]found, feed *keyspace.Feed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if feed != nil {
		c.feeds = append(c.feeds, feed)
	}
	for key, f := range in {
		if c.current {
			if f.revision.Tombstone {
				continue
			}
			c.total++
		}
		if c.limit == 0 || (c.next != nil && bytes.Compare(f.key, c.next) >= 0) {
			continue
		}
		old, ok := c.best[key]
		if ok && old.revision.Compare(f.revision) > 0 {
			continue
		}
		if !ok {
			c.bytes += foundSize + int64(len(f.key))
		}
		c.best[key] = f
	}
	if c.bytes > 2*c.limit {
		c.shrink()
	}
}

// shrink keeps the smallest keys that fit.
func (c *collector) shrink() {
	keys := make([][]byte, 0, len(c.best))
	for _, f := range c.best {
		keys = append(keys, f.key)
	}
	slices.SortFunc(keys, bytes.Compare)
	kept := int64(0)
	for i, key := range keys {
		size := foundSize + int64(len(key))
		if kept += size; kept <= c.limit || i == 0 { // at least one
			continue
		}
		if c.next == nil || bytes.Compare(key, c.next) < 0 {
			c.next = key
		}
		delete(c.best, string(key))
		c.bytes -= size
	}
}
