//go:build unix

package keyspace

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Large tables are mapped from the system: they go back at once when they are
// outgrown, while the garbage collector would let as much again pile up.
const mapFrom = 32 << 10 / slotSize

func allocSlots(n int) (slots []slot, heap bool) {
	if n >= mapFrom {
		b, err := unix.Mmap(-1, 0, n*slotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|populate)
		if err == nil {
			return unsafe.Slice((*slot)(unsafe.Pointer(unsafe.SliceData(b))), n), false
		}
	}
	return make([]slot, n), true
}

func freeSlots(slots []slot) {
	if len(slots) > 0 {
		b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(slots))), len(slots)*slotSize)
		_ = unix.Munmap(b) // fails only for memory that was never mapped
	}
}
