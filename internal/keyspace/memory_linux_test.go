package keyspace_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/keyspace"
)

// mapped is how many bytes the process has mapped that it can write to and that
// are no file.
func mapped(t *testing.T) (n int) {
	t.Helper()
	mappings, err := os.ReadFile("/proc/self/maps")
	require.NoError(t, err)
	for line := range strings.Lines(string(mappings)) {
		var from, to, off, inode int
		var mode, device string
		_, err := fmt.Sscanf(line, "%x-%x %s %x %s %d", &from, &to, &mode, &off, &device, &inode)
		if err == nil && mode == "rw-p" && inode == 0 {
			n += to - from
		}
	}
	return n
}

// The system gets the memory back at once.
func TestCounterUnmaps(t *testing.T) {
	const counters = 200
	var grown []int
	for range 4 { // Go's heap may take a new piece meanwhile, but not each time
		start := mapped(t)
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
		if grown = append(grown, mapped(t)-start); grown[len(grown)-1] < counters*keyspace.SlabBytes/4 {
			return
		}
	}
	require.Fail(t, "what is mapped grows", "bytes with %d counters each: %d", counters, grown)
}
