package query_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/query"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/querytest"
)

// varied is a database with everything that is read in its own way: a page that is
// too large to be held, several pieces, leases, members, a compaction.
func varied(tb testing.TB) []byte {
	huge := strings.Repeat("v", 5<<20)
	db := snaptest.NewDB().PageSize(1024).Lease(7, 60)
	for i := range 300 {
		key := "key/" + string(rune('a'+i%23))
		if i%17 == 0 {
			db.Delete(key)
			continue
		}
		db.PutLease(key, string(snaptest.Opaque(90)), int64(i%2*7))
	}
	return db.Put("key/huge", huge).Put("key/a", "last").Compact(100).Bytes(tb, false)
}

// reader fails or cancels at one read, counted from the last call of from. It is
// safe for concurrent use.
type reader struct {
	io.ReaderAt
	reads  atomic.Int64
	failAt atomic.Int64 // counted from 0; negative: never
	fail   error        // nil: cancel
	cancel func()
	after  atomic.Int64 // bytes of the reads that began later
}

func (r *reader) ReadAt(p []byte, off int64) (int, error) {
	n, at := r.reads.Add(1)-1, r.failAt.Load()
	switch {
	case at >= 0 && n == at && r.fail != nil:
		return 0, r.fail
	case at >= 0 && n == at:
		r.cancel()
	case at >= 0 && n > at:
		r.after.Add(int64(len(p)))
	}
	return r.ReaderAt.ReadAt(p, off)
}

func (r *reader) from(failAt int64) {
	r.reads.Store(0)
	r.after.Store(0)
	r.failAt.Store(failAt)
}

func (r *reader) hit() bool { return r.reads.Load() > r.failAt.Load() }

// No read of Open may fail unnoticed.
func TestEveryReadOfOpenFails(t *testing.T) {
	snaptest.NoLeaks(t)
	b := varied(t)
	for k := int64(0); ; k++ {
		r := &snaptest.FaultyReaderAt{ReaderAt: bytes.NewReader(b), FailAt: k, Err: syscall.EIO}
		db, err := query.NewDatabase(t.Context(), r, int64(len(b)), boltfile.Options{})
		if !r.Hit() {
			require.NoError(t, err)
			require.Greater(t, k, int64(20))
			require.NoError(t, db.Close())
			return
		}
		require.ErrorIs(t, err, syscall.EIO, "read %d", k)
		require.NotErrorIs(t, err, fault.ErrCorrupt)
		require.Nil(t, db)
	}
}

// No read of a query may fail unnoticed, and none spoils the next answer.
func TestEveryReadOfAQueryFails(t *testing.T) {
	snaptest.NoLeaks(t)
	b := varied(t)
	for i, q := range open(t, bytes.NewReader(b), len(b)).Queries("key/b", "key/") {
		t.Run(q.Name, func(t *testing.T) {
			want, refused, err := querytest.Ask(t.Context(), q)
			require.NoError(t, err)
			for k := int64(0); ; k++ {
				r := &reader{ReaderAt: bytes.NewReader(b), fail: syscall.EIO}
				r.from(-1)
				q := open(t, r, len(b)).Queries("key/b", "key/")[i] // which has kept nothing yet
				r.from(k)
				got, failed, err := querytest.Ask(t.Context(), q, syscall.EIO)
				require.NoError(t, err)
				if !r.hit() {
					require.Equal(t, want, got)
					require.Equal(t, refused == nil, failed == nil, failed)
					return
				}
				require.ErrorIs(t, failed, syscall.EIO, "read %d", k)
				require.NotErrorIs(t, failed, fault.ErrCorrupt)
				r.from(-1)
				got, _, err = querytest.Ask(t.Context(), q)
				require.NoError(t, err)
				require.Equal(t, want, got, "after the error of read %d", k)
				if k > 6 {
					k += k / 2
				}
			}
		})
	}
}

func open(tb testing.TB, r io.ReaderAt, size int) querytest.Target {
	tb.Helper()
	db, err := query.NewDatabase(context.Background(), r, int64(size), boltfile.Options{})
	require.NoError(tb, err)
	return target(db)
}

// How soon a query ends after its context is a matter of how much it still reads.
// That is bounded, however large the file.
func TestReadsAfterTheContextHasEnded(t *testing.T) {
	snaptest.NoLeaks(t)
	const bound = 4 * 256 << 10 // bytes, with all workers
	b := snaptest.NewDB().Large(10_000, 1000).Bytes(t, false)
	r := &reader{ReaderAt: bytes.NewReader(b)}
	r.from(-1)
	const key, prefix = "large/000000005000", "large/"
	for i, q := range open(t, r, len(b)).Queries(key, prefix) {
		t.Run(q.Name, func(t *testing.T) {
			for _, at := range []int64{0, 3, 20} {
				r.from(-1)
				q := open(t, r, len(b)).Queries(key, prefix)[i]
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				r.cancel = cancel
				r.from(at)
				_, refused, err := querytest.Ask(ctx, q, context.Canceled)
				require.NoError(t, err)
				if !r.hit() {
					r.from(-1)
					return // it reads less
				}
				require.LessOrEqual(t, r.after.Load(), int64(bound), "read %d", at)
				if r.reads.Load() > at+1 {
					require.ErrorIs(t, refused, context.Canceled, "read %d", at)
				}
			}
		})
	}
}
