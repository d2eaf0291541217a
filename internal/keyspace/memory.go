package keyspace

import "sync"

const (
	chunkSlots = 512
	slabChunks = 64 // 640 KiB
)

type chunk [chunkSlots]slot

// memory allocates chunks, which are not cleared. They come from slabs that are
// mapped from the system if possible: these go back to it at once, while the garbage
// collector would let as much again pile up.
type memory struct {
	mu    sync.Mutex
	slabs [][]chunk
	idle  []*chunk
}

func (m *memory) take() *chunk {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.idle) == 0 {
		slab := mapSlab()
		m.slabs = append(m.slabs, slab)
		for i := range slab {
			m.idle = append(m.idle, &slab[i])
		}
	}
	last := len(m.idle) - 1
	c := m.idle[last]
	m.idle = m.idle[:last]
	return c
}

func (m *memory) give(c *chunk) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.idle = append(m.idle, c)
}

func (m *memory) free() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, slab := range m.slabs {
		unmapSlab(slab)
	}
	m.slabs, m.idle = nil, nil
}
