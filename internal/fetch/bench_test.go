package fetch_test

import (
	"io"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/mem"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/fetch"
	"etcd.example/snapshot/internal/snaptest"
)

const benchSaveSize = 256 << 20 // bytes

func BenchmarkSaveTo(b *testing.B) {
	db := snaptest.Opaque(benchSaveSize)
	s := snaptest.Serve(b, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(db) })
	m := snapshot.New()
	b.SetBytes(benchSaveSize)
	b.ReportAllocs()
	for b.Loop() {
		_, err := m.SaveTo(b.Context(), s.ClientConfig(), io.Discard)
		require.NoError(b, err)
	}
}

func BenchmarkSave(b *testing.B) {
	db := snaptest.Opaque(benchSaveSize)
	s := snaptest.Serve(b, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(db) })
	m := snapshot.New()
	path := filepath.Join(b.TempDir(), "snapshot.db")
	b.SetBytes(benchSaveSize)
	b.ReportAllocs()
	for b.Loop() {
		require.NoError(b, m.Save(b.Context(), s.ClientConfig(), path))
	}
}

// BenchmarkSaveDecode is what a message costs from gRPC's frames to a block,
// with Save's own decoder and with protobuf's.
func BenchmarkSaveDecode(b *testing.B) {
	const blob = 32 << 10
	wire := marshal(b, &pb.SnapshotResponse{Blob: snaptest.Opaque(blob), RemainingBytes: 1 << 30, Version: "3.7.0"})
	for name, decode := range fetch.Decoders() {
		b.Run(name, func(b *testing.B) {
			var frames mem.BufferSlice
			for frame := range slices.Chunk(wire, 16<<10) {
				frames = append(frames, mem.SliceBuffer(frame))
			}
			block := make([]byte, blob)
			b.SetBytes(blob)
			b.ReportAllocs()
			for b.Loop() {
				require.NoError(b, decode(frames, block))
			}
		})
	}
}
