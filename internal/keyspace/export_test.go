package keyspace

// Bytes is the size of the tables.
func (c *Counter) Bytes() int {
	n := 0
	for i := range c.shards {
		n += len(c.shards[i].slots) * slotSize
	}
	return n
}
