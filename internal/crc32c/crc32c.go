// Package crc32c computes CRC-32C (Castagnoli) checksums, also of data whose
// pieces were summed apart.
package crc32c

import "hash/crc32"

var table = crc32.MakeTable(crc32.Castagnoli)

// Update returns the checksum of what crc sums, followed by p.
func Update(crc uint32, p []byte) uint32 { return crc32.Update(crc, table, p) }

// Combine returns the checksum of a followed by b, from their checksums and the
// length of b in bytes.
//
// A CRC is the remainder of a polynomial over GF(2) modulo P. Appending n bytes
// multiplies what came before by x^(8n), so the checksums combine as
// a·x^(8n) + b mod P; the inversions at both ends cancel out.
func Combine(a, b uint32, n int64) uint32 {
	for i := 0; n > 0; i, n = i+1, n>>1 {
		if n&1 != 0 {
			a = multiply(a, powers[i])
		}
	}
	return a ^ b
}

// powers[i] is x^(8·2^i) mod P.
var powers = func() (p [63]uint32) {
	p[0] = 1 << (31 - 8)
	for i := 1; i < len(p); i++ {
		p[i] = multiply(p[i-1], p[i-1])
	}
	return p
}()

// multiply returns a·b mod P. Bit 31 stands for x^0, as in a reflected CRC.
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
