//go:build !unix

package keyspace

func allocSlots(n int) (slots []slot, heap bool) { return make([]slot, n), true }

func freeSlots([]slot) {}
