package keyspace_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/keyspace"
	"etcd.example/snapshot/internal/snaptest"
)

// The system gets the memory back at once.
func TestCounterUnmaps(t *testing.T) {
	const counters = 200
	var grown []int64
	for range 4 { // Go's heap may take a new piece meanwhile, but not each time
		start := snaptest.WritableMemory(t)
		for range counters {
			c := keyspace.NewCounter(t.Context())
			f := c.NewFeed()
			f.Begin(0)
			f.Add(c.Fingerprint([]byte("key")), false)
			f.End()
			require.Equal(t, 1, live(t, c))
			require.Equal(t, keyspace.SlabBytes, c.Bytes())
			c.Close()
		}
		if grown = append(grown, snaptest.WritableMemory(t)-start); grown[len(grown)-1] < counters*keyspace.SlabBytes/4 {
			return
		}
	}
	require.Fail(t, "what is mapped grows", "bytes with %d counters each: %d", counters, grown)
}
