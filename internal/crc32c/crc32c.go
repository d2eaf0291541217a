// Package crc32c computes CRC-32C (Castagnoli) checksums, and combines the
// checksums of pieces.
package crc32c

import (
	"hash/crc32"
	"sync"
)

var table = crc32.MakeTable(crc32.Castagnoli)

// Update returns the checksum of the bytes with checksum crc, followed by p.
func Update(crc uint32, p []byte) uint32 { return crc32.Update(crc, table, p) }

// Combine returns the checksum of a followed by b, from their checksums and the
// length of b in bytes.
//
// A CRC is the remainder of a polynomial over GF(2) modulo P. Appending n bytes
// multiplies the bytes before by x^(8n), so the checksums combine as
// a·x^(8n) + b mod P; the inversions at both ends cancel out.
func Combine(a, b uint32, n int64) uint32 {
	table := shifts()
	for i := 0; n > 0; i, n = i+1, n>>8 {
		if digit := n & 0xFF; digit != 0 {
			a = multiply(a, table[i][digit])
		}
	}
	return a ^ b
}

// shifts returns x^(8·d·256^i) mod P for each digit d of a length in base 256.
var shifts = sync.OnceValue(func() *[8][256]uint32 {
	table := new([8][256]uint32)
	step := uint32(1) << (31 - 8) // x^8
	for i := range table {
		power := uint32(1) << 31 // x^0
		for d := range table[i] {
			table[i][d] = power
			power = multiply(power, step)
		}
		step = power
	}
	return table
})

// multiply returns a·b mod P. Bit 31 is x^0, as in a reflected CRC.
func multiply(a, b uint32) uint32 {
	var product uint32
	for ; a != 0; a <<= 1 {
		if a&(1<<31) != 0 {
			product ^= b
		}
		if b&1 != 0 {
			b = b>>1 ^ crc32.Castagnoli
		} else {
			b >>= 1
		}
	}
	return product
}
