package keyspace

import (
	"hash/maphash"
	"io"
	"sync"
)

// Counter counts the distinct keys that are alive: those whose latest change is
// not a deletion. Its input is the whole key space in pieces, each in revision
// order, that may come in any order and from several goroutines.
//
// It is exact. Each key is kept as a fingerprint of 128 bits together with the
// number of the piece that changed it last and how. A piece with a higher
// number overrules one with a lower; within a piece, and so within a Feed, the
// later change overrules. That needs no assumption on versions, compactions or
// completeness: a key counts exactly if its newest record in the file is a put,
// whatever older ones a compaction has removed or left behind. The fingerprints
// come from two hash functions with secret random seeds, so no file can be made
// to collide, and among 10^9 keys the chance of any collision is below 10^-20.
//
// Memory is 20 bytes a key at 64% to 80% occupancy, for the keys alive and the
// dead ones that an unfinished earlier piece could still mention.
type Counter struct {
	seeds  [2]maphash.Seed
	shards [shardCount]shard

	mu       sync.Mutex
	finished map[uint32]struct{} // pieces from settled on that are finished
	settled  uint32              // all pieces below are finished
}

const (
	shardBits  = 6
	shardCount = 1 << shardBits
)

// Fingerprint stands for a key.
type Fingerprint struct{ hi, lo uint64 }

// NewCounter returns a Counter, which must be closed.
func NewCounter() *Counter {
	return &Counter{
		seeds:    [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		finished: make(map[uint32]struct{}),
	}
}

// Close releases the memory.
func (c *Counter) Close() {
	for i := range c.shards {
		c.shards[i].free()
	}
}

// Live returns the number of keys alive. All feeds must have ended.
func (c *Counter) Live() int {
	n := 0
	for i := range c.shards {
		n += c.shards[i].live()
	}
	return n
}

// Fingerprint returns the fingerprint of key.
func (c *Counter) Fingerprint(key []byte) Fingerprint {
	return Fingerprint{maphash.Bytes(c.seeds[0], key), maphash.Bytes(c.seeds[1], key)}
}

// KeyHash is a writer that fingerprints what is written to it.
type KeyHash struct{ hi, lo maphash.Hash }

// NewKeyHash returns a KeyHash.
func (c *Counter) NewKeyHash() *KeyHash {
	h := &KeyHash{}
	h.hi.SetSeed(c.seeds[0])
	h.lo.SetSeed(c.seeds[1])
	return h
}

var _ io.Writer = (*KeyHash)(nil)

func (h *KeyHash) Write(p []byte) (int, error) {
	_, _ = h.hi.Write(p) // a maphash.Hash never fails
	return h.lo.Write(p)
}

// Fingerprint is that of the bytes written so far.
func (h *KeyHash) Fingerprint() Fingerprint { return Fingerprint{h.hi.Sum64(), h.lo.Sum64()} }

// Feed takes in pieces, one after the other. It belongs to one goroutine.
// Changes are held back until a few have come for the same shard.
type Feed struct {
	c       *Counter
	piece   uint32
	pending [shardCount][]slot
}

// feedBatch is the number of changes after which a shard is locked once.
const feedBatch = 32

// NewFeed returns a Feed.
func (c *Counter) NewFeed() *Feed {
	f := &Feed{c: c}
	backing := make([]slot, shardCount*feedBatch)
	for i := range f.pending {
		f.pending[i] = backing[i*feedBatch : i*feedBatch : (i+1)*feedBatch]
	}
	return f
}

// MaxPieces is the number of pieces that a Counter can tell apart.
const MaxPieces = 1<<31 - 2

// Begin starts a piece, numbered from 0 and below MaxPieces.
func (f *Feed) Begin(piece int) { f.piece = uint32(piece) }

// Add takes in the next change of the piece.
func (f *Feed) Add(key Fingerprint, tombstone bool) {
	s := newSlot(key, f.piece, tombstone)
	i := key.hi >> (64 - shardBits)
	f.pending[i] = append(f.pending[i], s)
	if len(f.pending[i]) == feedBatch {
		f.c.shards[i].mu.Lock()
		f.flush(int(i))
	}
}

// End finishes the piece. Pieces must be numbered without holes for dead keys
// to be forgotten.
func (f *Feed) End() {
	for _, wait := range []bool{false, true} { // first what no other feed is at
		for i := range f.pending {
			if len(f.pending[i]) > 0 && (wait || f.c.shards[i].mu.TryLock()) {
				if wait {
					f.c.shards[i].mu.Lock()
				}
				f.flush(i)
			}
		}
	}
	f.c.finish(f.piece)
}

// flush applies what is pending for a shard that is locked, and unlocks it.
func (f *Feed) flush(i int) {
	defer f.c.shards[i].mu.Unlock()
	f.c.shards[i].apply(f.pending[i], f.c.firstUnsettled)
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
