package crc32c_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/crc32c"
)

func TestCombine(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 70_000)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	for _, cut := range []int{0, 1, 2, 3, 4, 7, 31, 4096, 65_536, 69_999, 70_000} {
		a, b := data[:cut], data[cut:]
		require.Equal(t, crc32c.Update(0, data),
			crc32c.Combine(crc32c.Update(0, a), crc32c.Update(0, b), int64(len(b))), "cut at %d", cut)
	}
}

func TestCombineManyPieces(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var all []byte
	var sum uint32
	for range 500 {
		piece := make([]byte, rng.IntN(300))
		for i := range piece {
			piece[i] = byte(rng.Uint32())
		}
		all = append(all, piece...)
		sum = crc32c.Combine(sum, crc32c.Update(0, piece), int64(len(piece)))
	}
	require.Equal(t, crc32c.Update(0, all), sum)
}

// The shift by a length beyond any memory: twice 2^40 zero bytes must be the
// same as 2^41.
func TestCombineGreatLength(t *testing.T) {
	const n = int64(1) << 40
	zeros := func(crc uint32, n int64) uint32 { return crc32c.Combine(crc, 0, n) }
	require.Equal(t, zeros(0xDEADBEEF, 2*n), zeros(zeros(0xDEADBEEF, n), n))
}

// The entries of a leaf page of an etcd are some 3,500 bytes.
func BenchmarkUpdate(b *testing.B) {
	data := make([]byte, 3500)
	b.SetBytes(int64(len(data)))
	var sum uint32
	for b.Loop() {
		sum = crc32c.Update(sum, data)
	}
}

func BenchmarkCombine(b *testing.B) {
	var sum uint32
	for b.Loop() {
		sum = crc32c.Combine(sum, 0xDEADBEEF, 123_456_789)
	}
}
