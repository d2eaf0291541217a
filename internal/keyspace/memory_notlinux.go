//go:build unix && !linux

package keyspace

const populate = 0
