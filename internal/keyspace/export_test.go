package keyspace

// Bytes is the memory taken from the system.
func (c *Counter) Bytes() int { return len(c.memory.slabs) * slabChunks * chunkSlots * slotSize }

// NewFingerprint makes a fingerprint by hand. Those with the same first byte of
// hi belong to the same shard.
func NewFingerprint(hi, lo uint64) Fingerprint { return Fingerprint{hi, lo} }

// SlabBytes is what is taken from the system at a time.
const SlabBytes = slabChunks * chunkSlots * slotSize
