package bootstrap

import "google.golang.org/protobuf/encoding/protowire"

// message is an encoded protobuf message. Append its fields in the order of their
// numbers.
//
// The few messages of WAL and .snap file are encoded here because etcd's
// packages for them add "raft.proto", "record.proto" and "snap.proto" to the
// registry of the program, which panics on a second file of that name.
type message []byte

func (m message) varint(field protowire.Number, v uint64) message {
	return protowire.AppendVarint(protowire.AppendTag(m, field, protowire.VarintType), v)
}

func (m message) bytes(field protowire.Number, v []byte) message {
	return protowire.AppendBytes(protowire.AppendTag(m, field, protowire.BytesType), v)
}

// metadata is the etcdserverpb.Metadata: node and cluster.
func (c *Cluster) metadata() message {
	return message{}.varint(1, uint64(c.local)).varint(2, uint64(c.id))
}

// entry is the raftpb.Entry that adds the member at position i.
func (c *Cluster) entry(i int) message {
	const typeConfChange = 1
	return message{}.varint(1, typeConfChange).varint(2, c.Term()).varint(3, uint64(i)+1).bytes(4, c.confChange(i))
}

// confChange is the raftpb.ConfChange that adds the member at position i.
func (c *Cluster) confChange(i int) message {
	const typeAddNode = 0
	return message{}.varint(2, typeAddNode).varint(3, uint64(c.members[i].ID)).bytes(4, c.records[i])
}

// hardState is the raftpb.HardState: term, vote, and all entries committed. The
// vote is for the member with the lowest id, as with etcdutl; it does not bind the
// first election, which happens in a later term.
func (c *Cluster) hardState() message {
	return message{}.varint(1, c.Term()).varint(2, uint64(c.members[0].ID)).varint(3, c.Index())
}

// confState is the raftpb.ConfState: all members are voters.
func (c *Cluster) confState() message {
	var m message
	for _, member := range c.members {
		m = m.varint(1, uint64(member.ID))
	}
	return m
}

// raftSnapshot is the raftpb.Snapshot with the given state.
func (c *Cluster) raftSnapshot(state []byte) message {
	metadata := message{}.bytes(1, c.confState()).varint(2, c.Index()).varint(3, c.Term())
	return message{}.bytes(1, state).bytes(2, metadata)
}

// snapFile is the snappb.Snapshot: data and its CRC-32C.
func snapFile(crc uint32, data []byte) message {
	return message{}.varint(1, uint64(crc)).bytes(2, data)
}

// emptySnapshot is the walpb.Snapshot that every WAL starts with.
func emptySnapshot() message { return message{}.varint(1, 0).varint(2, 0) }

// walSnapshot is the walpb.Snapshot that refers to [Cluster.Snap].
func (c *Cluster) walSnapshot() message {
	return message{}.varint(1, c.Index()).varint(2, c.Term()).bytes(3, c.confState())
}

// walRecord is the walpb.Record; data may be nil.
func walRecord(typ recordType, crc uint32, data []byte) message {
	m := message{}.varint(1, uint64(typ)).varint(2, uint64(crc))
	if data != nil {
		m = m.bytes(3, data)
	}
	return m
}
