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
const foundSize = 112

// maxWindow bounds the bytes of the keys that are collected at a time, which with the
// slack of a quarter makes 32 MiB, and maxBatch those that a worker holds back. A
// single key may be larger.
const (
	maxWindow = 26 << 20
	maxBatch  = 1 << 20
)

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
	list    []found // several of a key at times, until shrink
	bytes   int64   // of list
	next    []byte  // keys from here on are left out; nil: none
	total   int
	counter *keyspace.Counter // counts the keys of an earlier revision
	feeds   []*keyspace.Feed  // idle
}

// collect returns the smallest keys of a range that fit into limit bytes, and how
// many there are in all. A limit of 0 only counts.
func (db *Database) collect(ctx context.Context, r Range, limit int64) (*window, error) {
	c := &collector{db: db, r: r, limit: limit, current: r.Revision == db.Current}
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
	if !c.current {
		live, err := c.counter.Live()
		if err != nil {
			return nil, err
		}
		c.total = live
	}
	c.shrink()
	keys := slices.DeleteFunc(c.list, func(f found) bool { return f.revision.Tombstone })
	if len(keys) < cap(keys)/2 {
		keys = slices.Clone(keys)
	}
	return &window{Range: r, keys: keys, next: c.next, total: c.total}, ctx.Err()
}

// batch holds the latest record of each key in a part of a piece.
type batch struct {
	list  []found
	at    map[string]int // in list, by key
	bytes int64
}

func (b *batch) add(e *entry) *found {
	i, ok := b.at[string(e.Key)]
	if !ok {
		i = len(b.list)
		b.list = append(b.list, found{key: bytes.Clone(e.Key)})
		b.at[string(e.Key)] = i
		b.bytes += foundSize + int64(len(e.Key))
	}
	return &b.list[i]
}

func (b *batch) reset() {
	b.list, b.bytes = b.list[:0], 0
	clear(b.at)
}

// visitor gathers the latest record of each key in one piece.
func (c *collector) visitor(piece int) boltfile.Visitor {
	in := &batch{at: make(map[string]int)}
	counted := make(map[keyspace.Fingerprint]struct{})
	var feed *keyspace.Feed
	if !c.current {
		feed = c.feed(piece)
	}
	add := func(e *entry) error {
		if e.revision.Main > c.r.Revision || !c.r.contains(e.Key) {
			return nil
		}
		if c.current {
			key := c.db.Index.Fingerprint(e.Key)
			if p, alive := c.db.Index.Piece(key); !alive || p != piece {
				return nil
			}
			counted[key] = struct{}{}
		} else {
			feed.Add(c.counter.Fingerprint(e.Key), e.revision.Tombstone)
		}
		if c.limit == 0 {
			return nil
		}
		f := in.add(e)
		f.revision, f.create, f.version, f.lease, f.size = e.revision, e.CreateRevision, e.Version, e.Lease, e.size()
		var err error
		if f.record, err = e.fingerprint(); err == nil && in.bytes > maxBatch {
			c.merge(in)
		}
		return err
	}
	return &entries{each: add, done: func() error {
		if feed != nil {
			feed.End()
		}
		c.merge(in)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.total += len(counted)
		if feed != nil {
			c.feeds = append(c.feeds, feed) // for another piece
		}
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

// merge takes over what a batch holds.
func (c *collector) merge(in *batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range in.list {
		if c.current && f.revision.Tombstone { // a later record of the key follows
			continue
		}
		if c.next != nil && bytes.Compare(f.key, c.next) >= 0 {
			continue
		}
		if most := int(c.limit+c.limit/4+foundSize) / foundSize; len(c.list) == cap(c.list) && len(c.list) > most/8 {
			c.list = slices.Grow(c.list, most-len(c.list)) // once, as each growth takes a copy
		}
		c.list = append(c.list, f)
		if c.bytes += foundSize + int64(len(f.key)); c.bytes > c.limit+c.limit/4 {
			c.shrink()
		}
	}
	in.reset()
}

// shrink sorts the keys, and keeps the latest record of each and the smallest keys
// that fit.
func (c *collector) shrink() {
	slices.SortFunc(c.list, func(a, b found) int {
		if order := bytes.Compare(a.key, b.key); order != 0 {
			return order
		}
		if order := b.revision.Compare(a.revision); order != 0 || a.revision.Tombstone == b.revision.Tombstone {
			return order
		}
		if a.revision.Tombstone { // which lies behind the put, although no etcd writes both
			return -1
		}
		return 1
	})
	list := slices.CompactFunc(c.list, func(a, b found) bool { return bytes.Equal(a.key, b.key) })
	c.bytes = 0
	for i, f := range list {
		size := foundSize + int64(len(f.key))
		if i > 0 && c.bytes+size > c.limit { // at least one
			c.next = f.key
			clear(list[i:])
			list = list[:i]
			break
		}
		c.bytes += size
	}
	c.list = list
}
