package keyspace

// Bytes is the memory taken from the system.
func (c *Counter) Bytes() int { return len(c.memory.slabs) * slabChunks * chunkSlots * slotSize }
