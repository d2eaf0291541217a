package keyspace

import (
	"math/bits"
	"sync"
)

// slot is the latest known change of a key. It has 20 bytes, without padding.
type slot struct {
	hi, lo [2]uint32
	change uint32 // piece+1 shifted left by one, plus one for a tombstone; 0 is an empty slot
}

const slotSize = 20

func newSlot(key Fingerprint, piece uint32, tombstone bool) slot {
	change := (piece + 1) << 1
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
func (s *slot) piece() uint32   { return s.change>>1 - 1 }

// shard is a hash table with open addressing for one part of the fingerprints.
type shard struct {
	mu    sync.Mutex
	slots []slot
	used  int
	heap  bool   // slots are on the Go heap
	seen  uint32 // what the look ahead saw; of no use
}

// home is where the search for a key begins: its fingerprint's lower half
// scaled to the size of the table.
func (s *shard) home(e *slot) int {
	hi, _ := bits.Mul64(uint64(e.lo[0])<<32|uint64(e.lo[1]), uint64(len(s.slots)))
	return int(hi)
}

// apply takes in changes in order. settled tells below which piece no more
// changes will come. The shard must be locked.
func (s *shard) apply(changes []slot, settled func() uint32) {
	if 5*(s.used+len(changes)) > 4*len(s.slots) {
		s.rebuild(len(changes), settled())
	}
	// Look at all the slots first: the processor then waits for memory once, not
	// once a key.
	for i := range changes {
		s.seen ^= s.slots[s.home(&changes[i])].change
	}
	for i := range changes {
		e := &changes[i]
		at := s.find(e)
		switch {
		case at.change == 0:
			*at = *e
			s.used++
		case e.piece() >= at.piece():
			at.change = e.change
		}
	}
}

// find returns the slot of the same key, or the empty one where it belongs.
func (s *shard) find(e *slot) *slot {
	for i := s.home(e); ; i++ {
		if i == len(s.slots) {
			i = 0
		}
		if at := &s.slots[i]; at.change == 0 || (at.hi == e.hi && at.lo == e.lo) {
			return at
		}
	}
}

const (
	minShardSlots = 64
	// Above this size a table grows by a quarter instead of doubling.
	slowGrowthSlots = 1 << 20 / slotSize
)

// rebuild makes room for more. Keys that are dead and settled are forgotten:
// whatever names them later is newer and stands for itself.
func (s *shard) rebuild(more int, settled uint32) {
	keep := func(e *slot) bool {
		return e.change != 0 && (!e.tombstone() || e.piece() >= settled)
	}
	kept := 0
	for i := range s.slots {
		if keep(&s.slots[i]) {
			kept++
		}
	}
	size := max(len(s.slots), minShardSlots)
	for 3*(kept+more) > 2*size {
		if size < slowGrowthSlots {
			size *= 2
		} else {
			size += size / 4
		}
	}
	old := shard{slots: s.slots, heap: s.heap}
	s.slots, s.heap = allocSlots(size)
	s.used = kept
	for i := range old.slots {
		if e := &old.slots[i]; keep(e) {
			*s.find(e) = *e
		}
	}
	old.free()
}

func (s *shard) live() int {
	n := 0
	for i := range s.slots {
		if e := &s.slots[i]; e.change != 0 && !e.tombstone() {
			n++
		}
	}
	return n
}

func (s *shard) free() {
	if !s.heap {
		freeSlots(s.slots)
	}
	s.slots = nil
}
