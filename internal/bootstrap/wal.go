package bootstrap

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	// WALName is the name of a WAL's first segment: sequence number and index
	// of the first entry, both zero.
	WALName = "0000000000000000-0000000000000000.wal"

	// SegmentSize is the size in bytes to which etcd preallocates a segment
	// (wal.SegmentSizeBytes). The bytes after the last record are zero.
	SegmentSize = 64_000_000
)

// recordType is the type of a record of etcd's WAL.
type recordType uint64

const (
	metadataRecord recordType = iota + 1
	entryRecord
	stateRecord
	crcRecord
	snapshotRecord
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// WriteWAL writes the records of the first WAL segment to w, one Write a
// record: node and cluster id, the empty snapshot that starts every WAL, one
// committed entry a member, the hard state, and the snapshot of [Cluster.Snap]. To
// complete the segment, extend its file with zeros to [SegmentSize].
func (c *Cluster) WriteWAL(w io.Writer) error {
	enc := &walEncoder{w: w}
	enc.record(crcRecord, nil)
	enc.record(metadataRecord, c.metadata())
	enc.record(snapshotRecord, emptySnapshot())
	for i := range c.members {
		enc.record(entryRecord, c.entry(i))
	}
	enc.record(stateRecord, c.hardState())
	enc.record(snapshotRecord, c.walSnapshot())
	return enc.err
}

// walEncoder writes WAL records until the first error, which it keeps.
type walEncoder struct {
	w   io.Writer
	crc uint32 // CRC-32C of the data of all records so far
	err error
}

// record writes one frame: a little-endian length field, the encoded record,
// and zeros up to a multiple of 8 bytes. If there is padding, the top byte of the
// length field has its top bit set and holds the number of padding bytes.
func (e *walEncoder) record(typ recordType, data []byte) {
	if e.err != nil {
		return
	}
	e.crc = crc32.Update(e.crc, castagnoli, data)
	rec := walRecord(typ, e.crc, data)
	pad := -len(rec) & 7
	field := uint64(len(rec))
	if pad > 0 {
		field |= uint64(0x80|pad) << 56
	}
	frame := binary.LittleEndian.AppendUint64(make([]byte, 0, 8+len(rec)+pad), field)
	frame = append(frame, rec...)
	frame = frame[:len(frame)+pad]
	if _, err := e.w.Write(frame); err != nil {
		e.err = fmt.Errorf("write WAL record: %w", err)
	}
}
