package keyspace

import (
	"context"
	"math/bits"
	"sync"
)

// slot is a change of a key. It has 20 bytes, without padding.
type slot struct {
	hi, lo [2]uint32
	change uint32 // piece shifted left by one, plus one for a tombstone
}

const slotSize = 20

func newSlot(key Fingerprint, piece uint32, tombstone bool) slot {
	change := piece << 1
	if tombstone {
		change |= 1
	}
	return slot{
		hi:     [2]uint32{uint32(key.hi >> 32), uint32(key.hi)},
		lo:     [2]uint32{uint32(key.lo >> 32), uint32(key.lo)},
		change: change,
	}
}

func (s *slot) tombstone() bool { return s.change&1 != 0 }
func (s *slot) piece() uint32   { return s.change >> 1 }

// minSlack is the smallest number of changes after which a shard is reduced.
const minSlack = 6000

// reduceStep is the number of changes after which a reduction checks its context,
// every few milliseconds.
const reduceStep = 1 << 16

// shard collects the changes of one part of the fingerprints.
type shard struct {
	mu     sync.Mutex
	chunks []*chunk
	used   int
	limit  int // of used
}

func (s *shard) at(i int) *slot { return &s.chunks[i/chunkSlots][i%chunkSlots] }

// move copies a slot. Mostly the slot is in its place already.
func (s *shard) move(to, from int) {
	if to != from {
		*s.at(to) = *s.at(from)
	}
}

func (s *shard) add(m *memory, changes []slot) {
	for len(changes) > 0 {
		if s.used == len(s.chunks)*chunkSlots {
			s.chunks = append(s.chunks, m.take())
		}
		n := copy(s.chunks[s.used/chunkSlots][s.used%chunkSlots:], changes)
		s.used += n
		changes = changes[n:]
	}
}

// reduce keeps only the latest change of each key, in any order of the keys. It
// drops keys that a piece below settled has deleted: a later change of such a key is
// newer, and counts by itself. index is scratch space, returned for the next call.
// When ctx ends, the content of the shard is no longer valid.
func (s *shard) reduce(ctx context.Context, m *memory, index []uint32, settled uint32) []uint32 {
	size := 1 << bits.Len(uint(2*s.used)) // at most half of it gets used
	if len(index) < size {
		index = make([]uint32, size)
	}
	index = index[:cap(index)]
	clear(index[:size])
	mask := uint32(size - 1)

	kept := 0
	for i := range s.used {
		if i%reduceStep == reduceStep-1 && ctx.Err() != nil {
			return index
		}
		e := s.at(i)
		for h := e.lo[0] & mask; ; h = (h + 1) & mask {
			if index[h] == 0 {
				s.move(kept, i)
				kept++
				index[h] = uint32(kept)
				break
			}
			if at := s.at(int(index[h] - 1)); at.lo == e.lo && at.hi == e.hi {
				if e.piece() >= at.piece() {
					at.change = e.change
				}
				break
			}
		}
	}
	used := 0
	for i := range kept {
		if e := s.at(i); !e.tombstone() || e.piece() >= settled {
			s.move(used, i)
			used++
		}
	}
	s.used = used
	for len(s.chunks)*chunkSlots >= s.used+chunkSlots {
		last := len(s.chunks) - 1
		m.give(s.chunks[last])
		s.chunks = s.chunks[:last]
	}
	return index
}

func (s *shard) live() int {
	n := 0
	for i := range s.used {
		if !s.at(i).tombstone() {
			n++
		}
	}
	return n
}
