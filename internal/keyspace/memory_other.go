//go:build !unix

package keyspace

func mapSlab() []chunk { return make([]chunk, slabChunks) }

func unmapSlab([]chunk) {}
