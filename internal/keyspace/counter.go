package keyspace

import (
	"context"
	"hash/maphash"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
)

// Counter counts the distinct live keys: those whose latest change is not a
// deletion. Its input is the whole key space in pieces, each in revision order,
// that may come in any order and from several goroutines.
//
// The count is exact. Counter stores each key as a fingerprint of 128 bits, with the
// number of the piece that changed it last and whether that deleted it. A piece with
// a higher number overrules one with a lower; within a piece, and so within a Feed,
// the later change overrules. This assumes nothing about versions, compactions or
// completeness: a key counts if and only if its newest record in the file is a put,
// whatever older ones a compaction has removed or left. The fingerprints come from
// two hash functions with secret random seeds, so no file can be crafted to collide,
// and among 10^9 keys the chance of any collision is below 10^-20.
//
// A part of the fingerprint selects the shard of a change. Some thousand changes
// later, a shard is reduced to the latest change of each key: that work stays within
// the processor's cache, as a table of all keys would not. Memory is 20 bytes a
// key, for the live keys and the dead ones that an unfinished earlier piece could
// still contain, plus a quarter of that or 30 MB for changes that were not reduced
// yet.
type Counter struct {
	ctx    context.Context
	seeds  [2]maphash.Seed
	memory memory
	shards [shardCount]shard

	mu       sync.Mutex
	feeds    []*Feed
	finished map[uint32]struct{} // finished pieces from settled on
	settled  uint32              // all pieces below are finished
}

const (
	shardBits  = 8
	shardCount = 1 << shardBits
)

// NewCounter returns a Counter, which must be closed. When ctx ends, reductions
// stop in the middle: the count is lost, and Live returns an error.
func NewCounter(ctx context.Context) *Counter {
	c := &Counter{
		ctx:      ctx,
		seeds:    [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		finished: make(map[uint32]struct{}),
	}
	for i := range c.shards {
		c.shards[i].limit = minSlack
	}
	return c
}

// Close releases the memory.
func (c *Counter) Close() { c.memory.free() }

// Live returns the number of live keys, using all processors. All pieces must have
// ended. The error is the context's.
func (c *Counter) Live() (int, error) {
	for _, f := range c.feeds {
		f.flush()
	}
	var live, next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			var index []uint32
			for c.ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= shardCount {
					return
				}
				index = c.shards[i].reduce(c.ctx, &c.memory, index, c.settled)
				live.Add(int64(c.shards[i].live()))
			}
		})
	}
	wg.Wait()
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return int(live.Load()), nil
}

// Fingerprint identifies a key.
type Fingerprint struct{ hi, lo uint64 }

// Fingerprint returns the fingerprint of key.
func (c *Counter) Fingerprint(key []byte) Fingerprint {
	return Fingerprint{maphash.Bytes(c.seeds[0], key), maphash.Bytes(c.seeds[1], key)}
}

// KeyHash is a writer that fingerprints what is written to it.
type KeyHash struct{ hi, lo maphash.Hash }

// NewKeyHash returns a KeyHash.
func (c *Counter) NewKeyHash() *KeyHash { return newKeyHash(c.seeds) }

func newKeyHash(seeds [2]maphash.Seed) *KeyHash {
	h := &KeyHash{}
	h.hi.SetSeed(seeds[0])
	h.lo.SetSeed(seeds[1])
	return h
}

var _ io.Writer = (*KeyHash)(nil)

func (h *KeyHash) Write(p []byte) (int, error) {
	_, _ = h.hi.Write(p) // a maphash.Hash never fails
	return h.lo.Write(p)
}

// Fingerprint returns the fingerprint of the bytes written so far.
func (h *KeyHash) Fingerprint() Fingerprint { return Fingerprint{h.hi.Sum64(), h.lo.Sum64()} }

// Feed takes pieces, one after the other. It belongs to one goroutine. It buffers
// changes until it has a few for the same shard.
type Feed struct {
	c       *Counter
	piece   uint32
	ended   []uint32 // pieces with changes that may still be buffered
	pending [shardCount][]slot
	index   []uint32
}

const (
	// feedBatch is the number of changes after which a shard is locked once.
	feedBatch = 16
	// feedPieces is the number of pieces after which all shards are locked once.
	feedPieces = 64
)

// NewFeed returns a Feed.
func (c *Counter) NewFeed() *Feed {
	f := &Feed{c: c}
	backing := make([]slot, shardCount*feedBatch)
	for i := range f.pending {
		f.pending[i] = backing[i*feedBatch : i*feedBatch : (i+1)*feedBatch]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.feeds = append(c.feeds, f)
	return f
}

// Begin starts a piece, numbered from 0 to at most 1<<31 - 3.
func (f *Feed) Begin(piece int) { f.piece = uint32(piece) }

// Add takes the next change of the piece.
func (f *Feed) Add(key Fingerprint, tombstone bool) {
	i := key.hi >> (64 - shardBits)
	f.pending[i] = append(f.pending[i], newSlot(key, f.piece, tombstone))
	if len(f.pending[i]) == feedBatch {
		f.apply(int(i))
	}
}

// End finishes the piece. Dead keys are only dropped if pieces are numbered without
// gaps.
func (f *Feed) End() {
	if f.ended = append(f.ended, f.piece); len(f.ended) == feedPieces {
		f.flush()
	}
}

// flush passes all buffered changes to the shards.
func (f *Feed) flush() {
	for i := range f.pending {
		if len(f.pending[i]) > 0 {
			f.apply(i)
		}
	}
	for _, piece := range f.ended {
		f.c.finish(piece)
	}
	f.ended = f.ended[:0]
}

func (f *Feed) apply(i int) {
	s := &f.c.shards[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(&f.c.memory, f.pending[i])
	if s.used >= s.limit {
		f.index = s.reduce(f.c.ctx, &f.c.memory, f.index, f.c.firstUnsettled())
		s.limit = s.used + max(s.used/4, minSlack)
	}
	f.pending[i] = f.pending[i][:0]
}

func (c *Counter) finish(piece uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finished[piece] = struct{}{}
	for {
		if _, ok := c.finished[c.settled]; !ok {
			return
		}
		delete(c.finished, c.settled)
		c.settled++
	}
}

func (c *Counter) firstUnsettled() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.settled
}
