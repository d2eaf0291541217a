package fetch_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"etcd.example/snapshot/internal/fetch"
	"etcd.example/snapshot/internal/snaptest"
)

func snapshotResponses() []*pb.SnapshotResponse {
	return []*pb.SnapshotResponse{
		{},
		{Blob: []byte{}},
		{RemainingBytes: 1},
		{Blob: []byte("pages"), RemainingBytes: 1 << 63, Version: "3.7.0"},
		{Header: &pb.ResponseHeader{ClusterId: 1, MemberId: 2, Revision: 3, RaftTerm: 4}, Blob: snaptest.Opaque(300)},
	}
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	wire, err := proto.Marshal(m)
	require.NoError(t, err)
	return wire
}

func requireSameChunk(t *testing.T, want *pb.SnapshotResponse, got fetch.Chunk) {
	t.Helper()
	require.Equal(t, want.GetRemainingBytes(), got.Remaining)
	require.Equal(t, want.GetVersion(), got.Version)
	require.Equal(t, len(want.GetBlob()), len(got.Blob))
	require.Equal(t, string(want.GetBlob()), string(got.Blob))
}

func TestSaveDecodesMessages(t *testing.T) {
	for i, m := range snapshotResponses() {
		for _, cut := range []int{0, 1, 2, 3, 7, 256} {
			t.Run(fmt.Sprintf("%d in pieces of %d", i, cut), func(t *testing.T) {
				got, err := fetch.DecodeChunk(marshal(t, m), cut)
				require.NoError(t, err)
				requireSameChunk(t, m, got)
			})
		}
	}
}

// What the codec decodes for others, such as a caller's interceptor, is left to
// protobuf.
func TestSaveDecodersAgree(t *testing.T) {
	for _, m := range snapshotResponses() {
		data := mem.BufferSlice{mem.SliceBuffer(marshal(t, m))}
		for name, decode := range fetch.Decoders() {
			block := make([]byte, len(m.Blob))
			require.NoError(t, decode(data, block), name)
			require.True(t, bytes.Equal(m.Blob, block), name)
		}
	}
}

// A later etcd may send fields of any kind that this version does not know, in
// any order, and a field may come twice: the last one counts.
func TestSaveDecodesUnknownFields(t *testing.T) {
	known := &pb.SnapshotResponse{Blob: []byte("old"), RemainingBytes: 7, Version: "3.8.0"}
	wire := protowire.AppendTag(nil, 9, protowire.Fixed64Type)
	wire = protowire.AppendFixed64(wire, 1)
	wire = append(wire, marshal(t, known)...)
	wire = protowire.AppendTag(wire, 10, protowire.Fixed32Type)
	wire = protowire.AppendFixed32(wire, 1)
	wire = protowire.AppendTag(wire, 11, protowire.BytesType)
	wire = protowire.AppendBytes(wire, []byte("unknown"))
	wire = protowire.AppendTag(wire, 12, protowire.VarintType)
	wire = protowire.AppendVarint(wire, 1<<40)
	wire = protowire.AppendTag(wire, 3, protowire.BytesType)
	wire = protowire.AppendBytes(wire, []byte("new blob"))
	for cut := range len(wire) {
		got, err := fetch.DecodeChunk(wire, cut)
		require.NoError(t, err)
		require.Equal(t, fetch.Chunk{Remaining: 7, Version: "3.8.0", Blob: []byte("new blob")}, got)
	}
}

func malformedMessages() map[string][]byte {
	return map[string][]byte{
		"cut tag":              {0x80},
		"endless tag":          {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"field 0":              {0x00, 0x01},
		"field 0 of bytes":     {0x02, 0x00},
		"field too large":      {0xf8, 0xff, 0xff, 0xff, 0xff, 0x01, 0x00},
		"group":                {0x0b},
		"no such wire type":    {0x0f},
		"cut remaining":        {0x10, 0x80},
		"cut blob":             {0x1a, 0x05, 'p', 'a', 'g', 'e'},
		"blob beyond int64":    {0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
		"blob without length":  {0x1a},
		"cut version":          {0x22, 0x02, '3'},
		"cut unknown fixed64":  {0x49, 0, 0, 0, 0, 0, 0, 0},
		"cut unknown fixed32":  {0x4d, 0, 0, 0},
		"cut header":           {0x0a, 0x02, 0x08},
		"cut id in header":     {0x0a, 0x01, 0x08, 0x10, 0x01},
		"header field 0":       {0x0a, 0x02, 0x00, 0x01},
		"first of two headers": {0x0a, 0x01, 0x08, 0x0a, 0x00},
		"version not UTF-8":    {0x22, 0x02, '3', 0xff},
	}
}

func TestSaveRefusesMalformedMessages(t *testing.T) {
	for name, wire := range malformedMessages() {
		t.Run(name, func(t *testing.T) {
			for _, cut := range []int{0, 1} {
				_, err := fetch.DecodeChunk(wire, cut)
				require.ErrorContains(t, err, "malformed SnapshotResponse")
			}
		})
	}
}

func FuzzSaveDecode(f *testing.F) {
	for _, m := range snapshotResponses() {
		f.Add(marshal(f, m), uint8(5))
	}
	for _, wire := range malformedMessages() {
		f.Add(wire, uint8(1))
	}
	f.Fuzz(func(t *testing.T, wire []byte, cut uint8) {
		got, err := fetch.DecodeChunk(wire, int(cut))
		var want pb.SnapshotResponse
		wantErr := proto.Unmarshal(wire, &want)
		if err != nil {
			require.Zero(t, got)
			return // protobuf also takes groups
		}
		require.NoError(t, wantErr)
		requireSameChunk(t, &want, got)
	})
}
