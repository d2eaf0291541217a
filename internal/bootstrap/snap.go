package bootstrap

import (
	"fmt"
	"hash/crc32"
)

// Snap returns the raft snapshot at the end of the first WAL segment: the name of
// its file in member/snap, and the content.
func (c *Cluster) Snap() (name string, content []byte, err error) {
	store, err := c.v2Store()
	if err != nil {
		return "", nil, fmt.Errorf("encode membership: %w", err)
	}
	data := c.raftSnapshot(store)
	content = snapFile(crc32.Checksum(data, castagnoli), data)
	return fmt.Sprintf("%016x-%016x.snap", c.Term(), c.Index()), content, nil
}
