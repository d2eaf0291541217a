package systemtest_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/query"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/querytest"
)

// openReader opens a Reader and closes it when the test ends.
func openReader(t *testing.T, path string) *snapshot.Reader {
	t.Helper()
	r, err := snapshot.New().Open(t.Context(), path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

// leasedSnapshot is one whose Open reads the key space twice.
func leasedSnapshot(t *testing.T) string {
	t.Helper()
	db := snaptest.History(t).Lease(7, 60).PutLease("key-zz", "leased", 7).Compact(500)
	return db.Large(2000, 1000).Write(t, filepath.Join(t.TempDir(), "db"), true)
}

// requireWritable fails if the file at path is locked.
func requireWritable(t *testing.T, path string) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Millisecond})
	require.NoError(t, err)
	require.NoError(t, db.Close())
}

// endingContext ends when it has been asked so many times whether it has.
type endingContext struct {
	context.Context
	left atomic.Int64
}

func (c *endingContext) Err() error {
	if c.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// When a call returns, it is over, also where its context ended half-way or an
// iteration was broken off: no goroutine, no file and no lock stays.
func TestReaderLeavesNothing(t *testing.T) {
	path := leasedSnapshot(t)
	for i, q := range querytest.Reader(openReader(t, path)).Queries("key-zz", "key") {
		t.Run(q.Name, func(t *testing.T) {
			snaptest.NoLeaks(t)
			rng := rand.New(rand.NewPCG(15, uint64(i)))
			r, err := snapshot.New().Open(t.Context(), path)
			require.NoError(t, err)
			q := querytest.Reader(r).Queries("key-zz", "key")[i]
			want, refused, err := querytest.Ask(t.Context(), q)
			require.NoError(t, err)
			cancelled := 0
			for range 20 {
				ctx := &endingContext{Context: context.Background()}
				ctx.left.Store(rng.Int64N(1 << rng.IntN(10)))
				got, ended, err := querytest.Ask(ctx, q, context.Canceled)
				require.NoError(t, err)
				if errors.Is(ended, context.Canceled) {
					cancelled++
					continue
				}
				require.Equal(t, refused == nil, ended == nil, ended)
				require.Equal(t, want, got)
			}
			require.NotZero(t, cancelled)
			got, _, err := querytest.Ask(t.Context(), q)
			require.NoError(t, err)
			require.Equal(t, want, got)
			require.NoError(t, r.Close())
			_, refused, err = querytest.Ask(t.Context(), q, query.ErrClosed)
			require.NoError(t, err)
			require.ErrorIs(t, refused, query.ErrClosed)
		})
	}
	t.Run("lock", func(t *testing.T) {
		copied := leasedSnapshot(t)
		r, err := snapshot.New().Open(t.Context(), copied)
		require.NoError(t, err)
		_, err = bolt.Open(copied, 0o600, &bolt.Options{Timeout: time.Millisecond})
		require.Error(t, err)
		require.NoError(t, r.Close())
		requireWritable(t, copied)
	})
}

// An Open whose context ends at any point leaves nothing.
func TestOpenEndedHalfWay(t *testing.T) {
	snaptest.NoLeaks(t)
	path := leasedSnapshot(t)
	ended := 0
	for left := int64(0); ; left += 1 + left/6 {
		ctx := &endingContext{Context: context.Background()}
		ctx.left.Store(left)
		r, err := snapshot.New().Open(ctx, path)
		if err == nil {
			require.NoError(t, r.Close())
			break
		}
		ended++
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, snapshot.ErrCorrupt)
		require.Nil(t, r)
	}
	require.Greater(t, ended, 10)
	requireWritable(t, path)
}

// A report that panics leaves no file open and no lock.
func TestReportPanicsDuringOpen(t *testing.T) {
	snaptest.NoLeaks(t)
	path := leasedSnapshot(t)
	for reports, panicked := 0, true; panicked; reports++ {
		var r *snapshot.Reader
		func() {
			defer func() { panicked = recover() != nil }()
			n := 0
			m := snapshot.New(snapshot.WithProgress(func(snapshot.Progress) {
				if n++; n > reports {
					panic(errReport)
				}
			}))
			var err error
			r, err = m.Open(t.Context(), path)
			require.NoError(t, err)
		}()
		if !panicked {
			require.GreaterOrEqual(t, reports, 2)
			require.NoError(t, r.Close())
		}
		require.Zero(t, snaptest.OpenFiles()[path], "after %d reports", reports)
	}
	requireWritable(t, path)
}

// What the loop's body does, a panic or a call back into the Reader, is no matter.
func TestLoopBodies(t *testing.T) {
	snaptest.NoLeaks(t)
	path := leasedSnapshot(t)
	r, err := snapshot.New().Open(t.Context(), path)
	require.NoError(t, err)
	target := querytest.Reader(r)
	queries := target.Queries("key-zz", "key")
	n := 0
	for kv, err := range target.Records(t.Context(), 0) {
		require.NoError(t, err)
		before := kv.String()
		_, _, err = querytest.Ask(t.Context(), queries[n%len(queries)])
		require.NoError(t, err)
		require.Equal(t, before, kv.String(), "the caller's to keep")
		if n++; n == len(queries) {
			break
		}
	}
	for _, all := range []func(func() bool){
		func(body func() bool) {
			r.Range(t.Context(), "key", clientv3.WithPrefix())(func(*mvccpb.KeyValue, error) bool { return body() })
		},
		func(body func() bool) { r.Records(t.Context(), 0)(func(snapshot.Record, error) bool { return body() }) },
		func(body func() bool) {
			at := snapshot.At{Reader: r, Revision: 600}
			snapshot.Diff(t.Context(), at, snapshot.At{Reader: r}, "key", clientv3.WithPrefix())(func(snapshot.Change, error) bool { return body() })
		},
	} {
		require.PanicsWithValue(t, errReport, func() { all(func() bool { panic(errReport) }) })
	}
	require.NoError(t, r.Close()) // no call is under way
	requireWritable(t, path)
}

// An iteration ends soon after its context, also where nothing is left to read.
func TestIterationEndsWithItsContext(t *testing.T) {
	r := openReader(t, leasedSnapshot(t))
	for range 2 { // the second one finds the keys in memory
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := 0
		var last error
		for _, err := range r.Range(ctx, "large/", clientv3.WithPrefix(), clientv3.WithKeysOnly()) {
			if last = err; err != nil {
				break
			}
			if n++; n == 10 {
				cancel()
			}
		}
		require.ErrorIs(t, last, context.Canceled)
		require.Equal(t, 10, n)
	}
}

// An option that etcd's client refuses is an error of an iteration too.
func TestRangeRefusesSortOption(t *testing.T) {
	r := openReader(t, snaptest.SmallFile(t))
	bad := clientv3.WithSort(clientv3.SortTarget(99), clientv3.SortDescend)
	_, want := r.KV().Get(t.Context(), "key", bad)
	require.Error(t, want)
	for _, err := range r.Range(t.Context(), "key", bad) {
		require.ErrorIs(t, err, want)
	}
	for _, err := range snapshot.Diff(t.Context(), snapshot.At{Reader: r}, snapshot.At{Reader: r}, "key", bad) {
		require.ErrorIs(t, err, want)
	}
}

// Many goroutines ask one Reader at once. One closes it meanwhile: each call answers
// as it does alone, or that the Reader is closed.
func TestReaderConcurrently(t *testing.T) {
	snaptest.NoLeaks(t)
	path := leasedSnapshot(t)
	r, err := snapshot.New().Open(t.Context(), path)
	require.NoError(t, err)
	queries := querytest.Reader(r).Queries("key-zz", "key")
	want := make([]string, len(queries))
	for i, q := range queries {
		want[i], _, err = querytest.Ask(t.Context(), q)
		require.NoError(t, err)
	}
	const goroutines = 8
	var asked, late atomic.Int64
	var wg sync.WaitGroup
	half := make(chan struct{})
	for g := range goroutines {
		wg.Go(func() {
			for j := 0; ; j++ {
				i := (g*5 + j*3) % len(queries)
				got, refused, err := querytest.Ask(context.Background(), queries[i], query.ErrClosed)
				switch {
				case err != nil:
					t.Error(err)
					return
				case errors.Is(refused, query.ErrClosed):
					late.Add(1)
					return
				case got != want[i]:
					t.Errorf("%s: got %s, want %s", queries[i].Name, got, want[i])
				}
				_ = r.Info()
				if asked.Add(1) == int64(2*len(queries)) {
					close(half)
				}
			}
		})
	}
	<-half
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
	wg.Wait()
	require.EqualValues(t, goroutines, late.Load())
	requireWritable(t, path)
}

// The last of the calls that Close has met releases the file.
func TestCloseDuringIterations(t *testing.T) {
	snaptest.NoLeaks(t)
	path := leasedSnapshot(t)
	r, err := snapshot.New().Open(t.Context(), path)
	require.NoError(t, err)
	n := 0
	for _, err := range r.Records(t.Context(), 0) {
		require.NoError(t, err)
		if n++; n == 10 {
			require.NoError(t, r.Close())
			for _, err := range r.Range(t.Context(), "key", clientv3.WithPrefix()) {
				require.ErrorIs(t, err, query.ErrClosed)
			}
			_, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Millisecond})
			require.Error(t, err, "still being read")
		}
	}
	require.Greater(t, n, 2000)
	requireWritable(t, path)
}
