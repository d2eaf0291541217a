//go:build unix

package keyspace

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const slabSize = slabChunks * chunkSlots * slotSize

func mapSlab() []chunk {
	b, err := unix.Mmap(-1, 0, slabSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|populate)
	if err != nil {
		// Out of mappings or of memory: let the Go runtime handle that.
		return make([]chunk, slabChunks)
	}
	return unsafe.Slice((*chunk)(unsafe.Pointer(unsafe.SliceData(b))), slabChunks)
}

func unmapSlab(slab []chunk) {
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(slab))), slabSize)
	_ = unix.Munmap(b) // fails if b was not mapped; then it is left to the garbage collector
}
