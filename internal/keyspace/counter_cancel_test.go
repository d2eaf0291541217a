package keyspace_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/keyspace"
)

// countdown is a context that ends when it has been asked a number of times.
type countdown struct {
	context.Context
	left, asked atomic.Int64
}

func newCountdown(t *testing.T, n int64) *countdown {
	c := &countdown{Context: t.Context()}
	c.left.Store(n)
	return c
}

func (c *countdown) Err() error {
	c.asked.Add(1)
	if c.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// A count that is broken off after any shard ends there, and says so.
func TestCounterCancelledBetweenShards(t *testing.T) {
	for _, n := range []int64{0, 1, 100, 255} {
		ctx := newCountdown(t, n)
		c := keyspace.NewCounter(ctx)
		f := c.NewFeed()
		f.Begin(0)
		for i := range uint64(1000) {
			f.Add(keyspace.NewFingerprint(i<<56, i), false)
		}
		f.End()
		live, err := c.Live()
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, live)
		asked := int64(runtime.GOMAXPROCS(0)) + 1 // once each, and for the result
		require.LessOrEqual(t, ctx.asked.Load(), n+asked)
		c.Close()
	}
}

// The work on a single shard, which grows with the database, is broken off too,
// at the end and while changes are still being taken in.
func TestCounterCancelledInAShard(t *testing.T) {
	const keys = 1 << 20
	ctx := newCountdown(t, 1<<40)
	c := keyspace.NewCounter(ctx)
	defer c.Close()
	f := c.NewFeed()
	f.Begin(0)
	for i := range uint64(keys) {
		f.Add(keyspace.NewFingerprint(7<<56, i<<32|i), false)
	}
	f.End()
	require.Greater(t, ctx.asked.Load(), int64(keys>>16), "never asked while changes come in")

	before := ctx.asked.Load()
	_, err := c.Live()
	require.NoError(t, err)
	whole := ctx.asked.Load() - before
	require.Greater(t, whole, int64(256+keys>>16))

	ctx.left.Store(256/2 + keys>>17)
	_, err = c.Live()
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, ctx.asked.Load()-before-whole, whole)
}
