package fetch

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/mem"
)

// DialFirst is dialFirst.
var DialFirst = dialFirst

// Chunk is what one message of the stream says.
type Chunk struct {
	Remaining uint64
	Version   string
	Blob      []byte
}

// DecodeChunk decodes a message as Save does, out of buffers of the given
// sizes.
func DecodeChunk(wire []byte, cut int) (Chunk, error) {
	var data mem.BufferSlice
	for len(wire) > cut && cut > 0 {
		data = append(data, mem.SliceBuffer(wire[:cut]))
		wire = wire[cut:]
	}
	data = append(data, mem.SliceBuffer(wire))
	var msg chunk
	defer msg.release()
	if err := newSnapshotCodec().Unmarshal(data, &msg); err != nil {
		return Chunk{}, err
	}
	out := Chunk{Remaining: msg.remaining, Version: msg.version, Blob: make([]byte, msg.size)}
	msg.read(out.Blob)
	return out, nil
}

// Decoders decode a message and copy its blob into a block.
func Decoders() map[string]func(data mem.BufferSlice, block []byte) error {
	codec := newSnapshotCodec()
	return map[string]func(mem.BufferSlice, []byte) error{
		"save": func(data mem.BufferSlice, block []byte) error {
			var msg chunk
			defer msg.release()
			if err := codec.Unmarshal(data, &msg); err != nil {
				return err
			}
			msg.read(block[:msg.size])
			return nil
		},
		"protobuf": func(data mem.BufferSlice, block []byte) error {
			var msg pb.SnapshotResponse
			err := codec.Unmarshal(data, &msg)
			copy(block, msg.Blob)
			return err
		},
	}
}

// LastRevision is lastRevision, and MaxRevisionReads what it reads at most.
var LastRevision = lastRevision

const MaxRevisionReads = maxRevisionReads
