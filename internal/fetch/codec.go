package fetch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// snapshotCodec decodes a SnapshotResponse into a chunk without copying its blob,
// which protobuf copies twice. Protobuf decodes everything else.
type snapshotCodec struct {
	encoding.CodecV2
}

func newSnapshotCodec() snapshotCodec {
	return snapshotCodec{CodecV2: encoding.GetCodecV2(grpcproto.Name)}
}

func (c snapshotCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if msg, ok := v.(*chunk); ok {
		msg.malformed = msg.decode(data)
		return msg.malformed
	}
	return c.CodecV2.Unmarshal(data, v)
}

// chunk is one message of the stream. Its blob lies in buffers that belong to
// gRPC until the next decode or release.
type chunk struct {
	remaining uint64 // bytes that follow, as the server announces
	version   string // storage version of the server
	blob      mem.Reader
	size      int   // bytes of the blob
	malformed error // of the last message
}

// Field numbers of SnapshotResponse and wire types, as in etcd's rpc.proto and
// the protobuf encoding.
const (
	fieldHeader    = 1
	fieldRemaining = 2
	fieldBlob      = 3
	fieldVersion   = 4

	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5

	maxField = 1<<29 - 1
)

var errMessage = errors.New("malformed SnapshotResponse")

// decode refuses what protobuf refuses, in parts that Save does not need too: a
// message without a blob or a number would otherwise pass for one that says nothing.
func (c *chunk) decode(data mem.BufferSlice) error {
	c.remaining, c.version, c.size = 0, "", 0
	whole := data.Len()
	blobAt := whole

	r := data.Reader()
	defer func() { _ = r.Close() }()
	for r.Remaining() > 0 {
		tag, err := binary.ReadUvarint(r)
		if err != nil {
			return fmt.Errorf("%w: tag: %w", errMessage, err)
		}
		field, wire := tag>>3, tag&7
		if field == 0 || field > maxField {
			return fmt.Errorf("%w: field number %d", errMessage, field)
		}
		var n uint64 // bytes of the value that follow
		switch wire {
		case wireVarint, wireBytes:
			if n, err = binary.ReadUvarint(r); err != nil {
				return fmt.Errorf("%w: field %d: %w", errMessage, field, err)
			}
		case wireFixed64:
			n = 8
		case wireFixed32:
			n = 4
		default:
			return fmt.Errorf("%w: field %d has wire type %d", errMessage, field, wire)
		}
		if wire == wireVarint {
			if field == fieldRemaining {
				c.remaining = n
			}
			continue
		}
		if n > uint64(r.Remaining()) {
			return fmt.Errorf("%w: field %d: got %d bytes, want %d", errMessage, field, r.Remaining(), n)
		}
		if wire == wireBytes {
			switch field {
			case fieldBlob:
				blobAt, c.size = whole-r.Remaining(), int(n)
			case fieldHeader:
				if err := proto.Unmarshal(next(r, n), new(pb.ResponseHeader)); err != nil {
					return fmt.Errorf("%w: header: %w", errMessage, err)
				}
				continue
			case fieldVersion:
				if c.version = string(next(r, n)); !utf8.ValidString(c.version) {
					return fmt.Errorf("%w: version %.40q is not UTF-8", errMessage, c.version)
				}
				continue
			}
		}
		_, _ = r.Discard(int(n))
	}
	c.blob.Reset(data)
	_, _ = c.blob.Discard(blobAt)
	return nil
}

// next returns the next n bytes. They must be there.
func next(r *mem.Reader, n uint64) []byte {
	p := make([]byte, n)
	_, _ = io.ReadFull(r, p)
	return p
}

// read fills p with the next bytes of the blob. They must be there.
func (c *chunk) read(p []byte) {
	_, _ = io.ReadFull(&c.blob, p)
}

// release returns the buffers of the blob to gRPC.
func (c *chunk) release() {
	_ = c.blob.Close()
}
