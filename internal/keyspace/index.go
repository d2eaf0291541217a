package keyspace

import (
	"context"
	"hash/maphash"
	"runtime"
	"sync"
	"sync/atomic"
)

// Index tells for each key that is alive which piece of the key space holds its
// latest record. It takes 29 bytes a key. It is safe for concurrent use.
type Index struct {
	seeds [2]maphash.Seed
	start [shardCount + 1]int // of the slots of each shard
	slots []slot              // a hash table for each shard, with linear probing
	keys  int
}

// emptySlot is the change of a slot without a key. No piece has this number.
const emptySlot = 1<<32 - 1

// Index returns the index of what the Counter has counted. Live must have
// returned. The Counter can be closed afterwards.
func (c *Counter) Index(ctx context.Context) (*Index, error) {
	x := &Index{seeds: c.seeds}
	for i := range c.shards {
		x.keys += c.shards[i].live()
		x.start[i+1] = x.start[i] + c.shards[i].used*10/7 + 1
	}
	x.slots = make([]slot, x.start[shardCount])
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= shardCount {
					return
				}
				x.fill(i, &c.shards[i])
			}
		})
	}
	wg.Wait()
	return x, ctx.Err()
}

func (x *Index) fill(i int, s *shard) {
	table := x.table(i)
	for j := range table {
		table[j].change = emptySlot
	}
	for j := range s.used {
		e := s.at(j)
		if e.tombstone() {
			continue
		}
		at := home(e.lo[0], len(table))
		for table[at].change != emptySlot {
			at = (at + 1) % len(table)
		}
		table[at] = *e
	}
}

func (x *Index) table(i int) []slot { return x.slots[x.start[i]:x.start[i+1]] }

// home is where the search for a key begins in a table of size slots.
func home(hash uint32, size int) int { return int(uint64(hash) * uint64(size) >> 32) }

// Piece returns the number of the piece that holds the latest record of a key, and
// whether the key is alive.
func (x *Index) Piece(key Fingerprint) (piece int, alive bool) {
	want := newSlot(key, 0, false)
	table := x.table(int(key.hi >> (64 - shardBits)))
	for at := home(want.lo[0], len(table)); table[at].change != emptySlot; at = (at + 1) % len(table) {
		if e := &table[at]; e.lo == want.lo && e.hi == want.hi {
			return int(e.piece()), true
		}
	}
	return 0, false
}

// Len is the number of keys.
func (x *Index) Len() int { return x.keys }

// Fingerprint returns the fingerprint of key.
func (x *Index) Fingerprint(key []byte) Fingerprint {
	return Fingerprint{maphash.Bytes(x.seeds[0], key), maphash.Bytes(x.seeds[1], key)}
}

// NewKeyHash returns a KeyHash.
func (x *Index) NewKeyHash() *KeyHash { return newKeyHash(x.seeds) }
