package systemtest_test

import (
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// liveMemory is what Go's heap holds without garbage, in bytes.
func liveMemory() int64 {
	runtime.GC()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	return int64(live[0].Value.Uint64())
}

// skipUnderRace skips a test of memory, which is another one with shadow pages, and
// whose collections take many times as long.
func skipUnderRace(t *testing.T) {
	t.Helper()
	if raceDetector {
		t.Skip("not run under the race detector: it measures memory")
	}
}

// peakMemory is how many bytes more the heap holds meanwhile, without garbage, with
// two processors.
func peakMemory(t *testing.T, f func()) (peak int64) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	runtime.GC() // pools give up what they hold at the second one
	before := liveMemory()
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			peak = max(peak, liveMemory()-before)
			select {
			case <-over:
				return
			case <-time.After(5 * time.Millisecond): // looking all the time would slow f down
			}
		}
	})
	func() {
		defer wg.Wait()
		defer close(over)
		f()
	}()
	t.Logf("%d MiB more", peak>>20)
	return peak
}

// An open Reader holds an index of at most 32 bytes a key. A query holds a few
// buffers, and the keys of its range up to a bound.
func TestReaderMemory(t *testing.T) {
	skipUnderRace(t)
	short.Skip(t, "looks at the heap all the time")
	const keys = 300_000
	path := snaptest.NewDB().Large(keys, 100).Write(t, filepath.Join(t.TempDir(), "db"), true)
	runtime.GC() // pools give up what they hold at the second one
	before := liveMemory()
	r, err := snapshot.New().Open(t.Context(), path)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	runtime.GC()
	held := liveMemory() - before
	t.Logf("%.1f bytes a key", float64(held)/keys)
	require.LessOrEqual(t, held, int64(32*keys+4<<20))
	for name, run := range map[string]func(){
		"hashkv": func() {
			_, err := r.HashKV(t.Context(), 0, 0)
			require.NoError(t, err)
		},
		"hashkv compacted": func() {
			_, err := r.HashKV(t.Context(), keys/2, keys/3)
			require.NoError(t, err)
		},
		"400 keys": func() {
			resp, err := r.KV().Get(t.Context(), "large/0000000010", clientv3.WithRange("large/0000000014"))
			require.NoError(t, err)
			require.Len(t, resp.Kvs, 400)
		},
		"count": func() {
			resp, err := r.KV().Get(t.Context(), "large/", clientv3.WithPrefix(), clientv3.WithCountOnly())
			require.NoError(t, err)
			require.EqualValues(t, keys, resp.Count)
		},
		"range": func() {
			n := 0
			for _, err := range r.Range(t.Context(), "large/", clientv3.WithPrefix()) {
				require.NoError(t, err)
				n++
			}
			require.Equal(t, keys, n)
		},
		"records": func() {
			n := 0
			for _, err := range r.Records(t.Context(), 0) {
				require.NoError(t, err)
				n++
			}
			require.Equal(t, keys, n)
		},
		"diff": func() {
			n := 0
			at := snapshot.At{Reader: r, Revision: keys / 2}
			for _, err := range snapshot.Diff(t.Context(), at, snapshot.At{Reader: r}, "large/", clientv3.WithPrefix()) {
				require.NoError(t, err)
				n++
			}
			require.Equal(t, keys/2+1, n)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bound := int64(96 << 20)
			if name == "diff" { // which holds two ranges
				bound *= 2
			}
			require.Less(t, peakMemory(t, run), bound)
		})
	}
}
