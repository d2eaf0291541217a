package bootstrap

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

const (
	// WALName is the name of a WAL's first segment: sequence number and index
	// of the first entry, both zero.
	WALName = "0000000000000000-0000000000000000.wal"

	// SegmentSize is the size in bytes to which etcd preallocates a segment,
	// zero after the last record (wal.SegmentSizeBytes).
	SegmentSize = 64_000_000
)

// The record types of etcd's WAL.
const (
	metadataRecord int64 = iota + 1
	entryRecord
	stateRecord
	crcRecord
	snapshotRecord
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// WriteWAL writes the records of the first WAL segment to w, one Write a
// record: node and cluster id, the empty snapshot that starts every WAL, one
// committed entry a member, the hard state, and the snapshot that [Cluster.Snap]
// holds. The segment is complete when its file is extended with zeros to
// [SegmentSize].
func (c *Cluster) WriteWAL(w io.Writer) error {
	enc := &walEncoder{w: w}
	enc.record(crcRecord, nil)
	enc.message(metadataRecord, c.metadata())
	enc.message(snapshotRecord, &walpb.Snapshot{Index: proto.Uint64(0), Term: proto.Uint64(0)})
	for i := range c.members {
		enc.message(entryRecord, &raftpb.Entry{
			Type:  raftpb.EntryConfChange.Enum(),
			Term:  proto.Uint64(c.Term()),
			Index: proto.Uint64(uint64(i) + 1),
			Data:  enc.marshal(c.confChange(i)),
		})
	}
	enc.message(stateRecord, c.hardState())
	enc.message(snapshotRecord, &walpb.Snapshot{
		Index:     proto.Uint64(c.Index()),
		Term:      proto.Uint64(c.Term()),
		ConfState: c.confState(),
	})
	return enc.err
}

// walEncoder writes WAL records until the first error, which it keeps.
type walEncoder struct {
	w   io.Writer
	crc uint32 // CRC-32C of the data of all records so far
	err error
}

func (e *walEncoder) marshal(m proto.Message) []byte {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil && e.err == nil {
		e.err = fmt.Errorf("encode %T: %w", m, err)
	}
	return data
}

func (e *walEncoder) message(typ int64, m proto.Message) {
	e.record(typ, e.marshal(m))
}

// record writes one frame: a little-endian length field, the encoded record,
// and zeros up to a multiple of 8 bytes. When there is padding, the top byte of
// the length field has its top bit set and says how much.
func (e *walEncoder) record(typ int64, data []byte) {
	e.crc = crc32.Update(e.crc, castagnoli, data)
	rec := e.marshal(&walpb.Record{Type: proto.Int64(typ), Crc: proto.Uint32(e.crc), Data: data})
	pad := -len(rec) & 7
	field := uint64(len(rec))
	if pad > 0 {
		field |= uint64(0x80|pad) << 56
	}
	frame := binary.LittleEndian.AppendUint64(make([]byte, 0, 8+len(rec)+pad), field)
	frame = append(frame, rec...)
	frame = frame[:len(frame)+pad]
	if e.err != nil {
		return
	}
	if _, err := e.w.Write(frame); err != nil {
		e.err = fmt.Errorf("write WAL record: %w", err)
	}
}
