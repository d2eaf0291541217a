package keyspace

import (
	"bufio"
	"errors"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// Record is an mvccpb.KeyValue. Key and Value are part of the input.
type Record struct {
	Key            []byte
	CreateRevision int64
	ModRevision    int64
	Version        int64
	Value          []byte
	Lease          int64
}

// The fields of mvccpb.KeyValue, by number.
const (
	fieldKey            = 1
	fieldCreateRevision = 2
	fieldModRevision    = 3
	fieldVersion        = 4
	fieldValue          = 5
	fieldLease          = 6
)

func (r *Record) bytes(number protowire.Number, b []byte) {
	switch number {
	case fieldKey:
		r.Key = b
	case fieldValue:
		r.Value = b
	}
}

func (r *Record) number(number protowire.Number, v uint64) {
	switch number {
	case fieldCreateRevision:
		r.CreateRevision = int64(v)
	case fieldModRevision:
		r.ModRevision = int64(v)
	case fieldVersion:
		r.Version = int64(v)
	case fieldLease:
		r.Lease = int64(v)
	}
}

// ParseRecord reads a KeyValue in protocol buffer encoding, as leniently as
// proto.Unmarshal: it skips unknown fields, and of a repeated field the last counts.
// An empty record is valid; etcd writes one when it bumps the revision.
func ParseRecord(b []byte) (Record, error) {
	var rec Record
	for at := 0; at < len(b); {
		tag, n := uint64(b[at]), 1
		if tag >= 1<<7 { // no tag that etcd writes is that large
			tag, n = protowire.ConsumeVarint(b[at:])
		}
		if n < 0 {
			return Record{}, malformed("KeyValue: tag at byte %d: %w", at, protowire.ParseError(n))
		}
		number, kind := protowire.DecodeTag(tag)
		if !number.IsValid() {
			return Record{}, malformed("KeyValue: field number %d at byte %d", tag>>3, at)
		}
		field := b[at+n:]
		size := 0 // of the value
		switch kind {
		case protowire.BytesType:
			length, prefix := protowire.ConsumeVarint(field)
			if size = prefix; prefix < 0 {
				break
			}
			if length > uint64(len(field)-prefix) {
				return Record{}, malformed("KeyValue: field %d at byte %d: %d bytes exceed the record", number, at, length)
			}
			size += int(length)
			rec.bytes(number, field[prefix:size])
		case protowire.VarintType:
			var v uint64
			v, size = protowire.ConsumeVarint(field)
			rec.number(number, v)
		default:
			size = protowire.ConsumeFieldValue(number, kind, field)
		}
		if size < 0 {
			return Record{}, malformed("KeyValue: field %d at byte %d: %w", number, at, protowire.ParseError(size))
		}
		at += n + size
	}
	return rec, nil
}

// ReadRecord is ParseRecord for a KeyValue of size bytes that is too large to
// be held in memory. It calls newKey for each occurrence of the key field,
// whose bytes it then writes to what newKey returned; the last one counts. Key and
// Value of the result are empty.
func ReadRecord(r io.Reader, size int64, newKey func() io.Writer) (rec Record, err error) {
	in := &recordReader{in: bufio.NewReaderSize(io.LimitReader(r, size), int(min(size, 64<<10))), left: size}
	for in.left > 0 {
		tag := in.varint()
		number, kind := protowire.DecodeTag(tag)
		if in.err == nil && !number.IsValid() {
			return Record{}, malformed("KeyValue: field number %d", tag>>3)
		}
		switch {
		case kind == protowire.VarintType:
			rec.number(number, in.varint())
		case kind == protowire.Fixed32Type:
			in.copy(io.Discard, 4)
		case kind == protowire.Fixed64Type:
			in.copy(io.Discard, 8)
		case kind == protowire.BytesType && number == fieldKey:
			in.copy(newKey(), in.varint())
		case kind == protowire.BytesType:
			in.copy(io.Discard, in.varint())
		default: // groups, which no version of etcd has used
			return Record{}, malformed("KeyValue: field %d of wire type %d", number, kind)
		}
		if in.err != nil {
			return Record{}, in.err
		}
	}
	return rec, nil
}

// recordReader reads a record piece by piece and keeps the first error.
type recordReader struct {
	in   *bufio.Reader
	left int64
	err  error
}

func (r *recordReader) varint() uint64 {
	if r.err != nil {
		return 0
	}
	b, err := r.in.Peek(int(min(r.left, 10)))
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
		return 0
	}
	v, n := protowire.ConsumeVarint(b)
	if n < 0 {
		r.err = malformed("KeyValue: %d bytes before its end: %w", r.left, protowire.ParseError(n))
		return 0
	}
	_, r.err = r.in.Discard(n)
	r.left -= int64(n)
	return v
}

func (r *recordReader) copy(w io.Writer, n uint64) {
	if r.err != nil {
		return
	}
	if n > uint64(r.left) {
		r.err = malformed("KeyValue: field of %d bytes, %d bytes before its end", n, r.left)
		return
	}
	_, r.err = io.CopyN(w, r.in, int64(n))
	r.left -= int64(n)
}
