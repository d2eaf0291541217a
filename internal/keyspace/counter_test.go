package keyspace_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/keyspace"
	"etcd.example/snapshot/internal/snaptest/short"
)

type change struct {
	key  string
	dead bool
}

// history makes pieces of random changes, and what is alive after them all.
func history(rng *rand.Rand, pieces, changes, keys int) (h [][]change, alive int) {
	live := map[string]bool{}
	for range pieces {
		var piece []change
		for range rng.IntN(changes + 1) {
			c := change{fmt.Sprint("key", rng.IntN(keys)), rng.IntN(3) == 0}
			live[c.key] = !c.dead
			piece = append(piece, c)
		}
		h = append(h, piece)
	}
	for _, l := range live {
		if l {
			alive++
		}
	}
	return h, alive
}

func feed(f *keyspace.Feed, c *keyspace.Counter, number int, piece []change) {
	f.Begin(number)
	for _, ch := range piece {
		f.Add(c.Fingerprint([]byte(ch.key)), ch.dead)
	}
	f.End()
}

func live(tb testing.TB, c *keyspace.Counter) int {
	tb.Helper()
	n, err := c.Live()
	require.NoError(tb, err)
	return n
}

// Pieces in any order give what a map gives in order.
func TestCounterInAnyOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range short.Or(200, 20) {
		pieces := 1 + rng.IntN(40)
		h, alive := history(rng, pieces, 1+rng.IntN(300), 1+rng.IntN(2000))
		c := keyspace.NewCounter(t.Context())
		f := c.NewFeed()
		for _, i := range rng.Perm(pieces) {
			feed(f, c, i, h[i])
		}
		require.Equal(t, alive, live(t, c))
		c.Close()
	}
}

func TestCounterFromManyGoroutines(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	h, alive := history(rng, 400, 2000, 100_000)
	for range short.Or(5, 1) {
		c := keyspace.NewCounter(t.Context())
		var wg sync.WaitGroup
		next := make(chan int)
		for range 4 {
			wg.Go(func() {
				f := c.NewFeed()
				for i := range next {
					feed(f, c, i, h[i])
				}
			})
		}
		for i := range h {
			next <- i
		}
		close(next)
		wg.Wait()
		require.Equal(t, alive, live(t, c))
		c.Close()
	}
}

// Large tables, which are not on the Go heap, with dead keys that are forgotten
// on the way.
func TestCounterLarge(t *testing.T) {
	c := keyspace.NewCounter(t.Context())
	defer c.Close()
	f := c.NewFeed()
	const pieces, each = 600, 1000
	for p := range pieces {
		f.Begin(p)
		for i := range each {
			f.Add(c.Fingerprint(fmt.Appendf(nil, "%d/%d", p, i)), false)
			if p > 0 && i%2 == 0 {
				f.Add(c.Fingerprint(fmt.Appendf(nil, "%d/%d", p-1, i)), true)
			}
		}
		f.End()
	}
	require.Equal(t, pieces*each/2+each/2, live(t, c))
	require.Less(t, c.Bytes(), 48<<20, "dead keys are forgotten")
}

// A shard is reduced time and again while pieces are still to come, out of order
// and from several feeds: no dead key is forgotten that one of them revives.
func TestCounterReducedOnTheWay(t *testing.T) {
	const pieces, each, keys, apart = 2000, 30, 3000, 40
	rng := rand.New(rand.NewPCG(9, 9))
	for range short.Or(10, 2) {
		alive := map[int]bool{}
		history := make([][]int, pieces) // keys, negative where they are deleted
		for i := range history {
			for range each {
				key := 1 + rng.IntN(keys)
				alive[key] = rng.IntN(2) == 0
				if !alive[key] {
					key = -key
				}
				history[i] = append(history[i], key)
			}
		}
		want := 0
		for _, a := range alive {
			if a {
				want++
			}
		}

		order := make([]int, pieces) // a piece comes a little late, some much
		late := make([]int, pieces)
		for i := range order {
			order[i], late[i] = i, i+rng.IntN(apart)
			if rng.IntN(pieces/4) == 0 {
				late[i] += pieces / 2
			}
		}
		slices.SortStableFunc(order, func(a, b int) int { return late[a] - late[b] })

		c := keyspace.NewCounter(t.Context())
		feeds := []*keyspace.Feed{c.NewFeed(), c.NewFeed(), c.NewFeed()}
		for _, i := range order {
			f := feeds[rng.IntN(len(feeds))]
			f.Begin(i)
			for _, key := range history[i] {
				f.Add(keyspace.NewFingerprint(uint64(max(key, -key)), uint64(max(key, -key))<<32), key < 0)
			}
			f.End()
		}
		require.Equal(t, want, live(t, c))
		c.Close()
	}
}

// Keys that came and went leave nothing behind, however many they are.
func TestCounterForgetsTheDead(t *testing.T) {
	c := keyspace.NewCounter(t.Context())
	defer c.Close()
	f := c.NewFeed()
	const pieces, each = 2000, 100
	for p := range pieces {
		f.Begin(p)
		for i := range each {
			key := keyspace.NewFingerprint(1, uint64(p*each+i)<<32)
			f.Add(key, false)
			f.Add(key, true)
		}
		f.End()
	}
	require.Zero(t, live(t, c))
	require.Equal(t, keyspace.SlabBytes, c.Bytes())
}

// Memory that one shard no longer needs serves the others.
func TestCounterSharesMemory(t *testing.T) {
	c := keyspace.NewCounter(t.Context())
	defer c.Close()
	f := c.NewFeed()
	const shards, pieces, each = 16, 200, 100
	for p := range shards * pieces {
		f.Begin(p)
		for i := range each {
			key := keyspace.NewFingerprint(uint64(p/pieces)<<56, uint64(p*each+i)<<32)
			f.Add(key, false)
			f.Add(key, true)
		}
		f.End()
	}
	require.Zero(t, live(t, c))
	require.LessOrEqual(t, c.Bytes(), 5*keyspace.SlabBytes)
}

// Where a number is left out the dead are kept, but do not count.
func TestCounterWithHoles(t *testing.T) {
	c := keyspace.NewCounter(t.Context())
	defer c.Close()
	f := c.NewFeed()
	feed(f, c, 7, []change{{"a", false}, {"b", true}})
	feed(f, c, 3, []change{{"b", false}, {"c", true}, {"a", true}})
	require.Equal(t, 1, live(t, c))
}

// All 128 bits of a fingerprint tell keys apart.
func TestCounterComparesWholeFingerprints(t *testing.T) {
	c := keyspace.NewCounter(t.Context())
	defer c.Close()
	f := c.NewFeed()
	f.Begin(0)
	for bit := range 64 {
		f.Add(keyspace.NewFingerprint(1<<bit, 0), false)
		f.Add(keyspace.NewFingerprint(0, 1<<bit), false)
	}
	f.End()
	require.Equal(t, 128, live(t, c))
}

// A key hashed in parts is the same key.
func TestKeyHash(t *testing.T) {
	c := keyspace.NewCounter(t.Context())
	defer c.Close()
	for n := range 300 {
		key := make([]byte, n)
		for i := range key {
			key[i] = byte(i * n)
		}
		h := c.NewKeyHash()
		for i := 0; i < n; i += 7 {
			_, err := h.Write(key[i:min(i+7, n)])
			require.NoError(t, err)
		}
		require.Equal(t, c.Fingerprint(key), h.Fingerprint())
	}
}

func TestCounterEmpty(t *testing.T) {
	c := keyspace.NewCounter(t.Context())
	require.Zero(t, live(t, c))
	require.Zero(t, c.Bytes())
	c.Close()
	c.Close()
}

// A Counter that is closed has no memory, whether it was counted or not.
func TestCounterGivesBackItsMemory(t *testing.T) {
	for _, counted := range []bool{false, true} {
		c := keyspace.NewCounter(t.Context())
		f := c.NewFeed()
		for p := range 100 {
			f.Begin(p)
			for i := range 1000 {
				f.Add(c.Fingerprint(fmt.Appendf(nil, "%d/%d", p, i)), false)
			}
			f.End()
		}
		require.Greater(t, c.Bytes(), 2*keyspace.SlabBytes)
		if counted {
			require.Equal(t, 100_000, live(t, c))
		}
		c.Close()
		require.Zero(t, c.Bytes())
		c.Close()
	}
}

func BenchmarkCounter(b *testing.B) {
	keys := make([][]byte, 1<<20)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "/registry/pods/namespace-%d/pod-%d", i%100, i)
	}
	for b.Loop() {
		c := keyspace.NewCounter(b.Context())
		f := c.NewFeed()
		for i, k := range keys {
			if i%500 == 0 {
				f.Begin(i / 500)
			}
			f.Add(c.Fingerprint(k), false)
			if i%500 == 499 || i == len(keys)-1 {
				f.End()
			}
		}
		require.Equal(b, len(keys), live(b, c))
		c.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(keys)), "ns/key")
}
