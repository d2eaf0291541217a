package inspect_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/inspect"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/short"
	"etcd.example/snapshot/internal/trailer"
)

// No read of Status or Verify may fail unnoticed, those of values that are not
// held in memory among them.
func TestEveryReadOfStatusFails(t *testing.T) {
	huge := strings.Repeat("v", 5<<20)
	b := snaptest.NewDB().Put("a", huge).Put("b", "v").Raw("meta", "note", huge).StorageVersion("3.6.0").Bytes(t, false)
	for _, strict := range []bool{false, true} {
		t.Run(fmt.Sprintf("strict=%v", strict), func(t *testing.T) {
			for k := int64(0); ; k++ {
				r := &snaptest.FaultyReaderAt{ReaderAt: bytes.NewReader(b), FailAt: k, Err: syscall.EIO}
				st, err := inspect.Database(context.Background(), r, int64(len(b)), strict, boltfile.Options{})
				if !r.Hit() {
					require.NoError(t, err)
					require.Equal(t, "3.6.0", st.Version)
					require.Equal(t, 2, st.TotalKey)
					require.Greater(t, k, int64(10))
					return
				}
				require.ErrorIs(t, err, syscall.EIO, "read %d", k)
				require.NotErrorIs(t, err, snapshot.ErrCorrupt)
			}
		})
	}
}

// Values that are not held in memory are read once too, although they are both
// decoded and summed.
func TestStatusReadsLargeValuesOnce(t *testing.T) {
	huge := strings.Repeat("v", 5<<20)
	b := snaptest.NewDB().Put("a", huge).Put("b", "v").Raw("meta", "note", huge).Bytes(t, false)
	for _, strict := range []bool{false, true} {
		r := &snaptest.CountingReaderAt{ReaderAt: bytes.NewReader(b)}
		_, err := inspect.Database(t.Context(), r, int64(len(b)), strict, boltfile.Options{})
		require.NoError(t, err)
		require.Less(t, r.N.Load(), int64(len(b)+1<<20))
	}
}

// A context that ends with the last read is heeded: counting the keys, which is
// what is left to do, takes its time in a large database.
func TestStatusCancelledWhileCounting(t *testing.T) {
	b := snaptest.NewDB().Large(5000, 100).Bytes(t, false)
	reads := func(ctx context.Context, last func(n int)) (int, error) {
		n := 0
		_, err := inspect.Database(ctx, bytes.NewReader(b), int64(len(b)), false, boltfile.Options{
			Workers: 1,
			Read:    func(int64) { n++; last(n) },
		})
		return n, err
	}
	all, err := reads(t.Context(), func(int) {})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n, err := reads(ctx, func(n int) {
		if n == all {
			cancel()
		}
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, all, n)
}

// cancellingReaderAt cancels at one read, and counts the bytes of those that
// begin after it.
type cancellingReaderAt struct {
	*bytes.Reader
	cancelAt int64
	cancel   context.CancelFunc
	reads    atomic.Int64
	after    atomic.Int64 // bytes
}

func (r *cancellingReaderAt) ReadAt(p []byte, off int64) (int, error) {
	switch n := r.reads.Add(1); {
	case n == r.cancelAt:
		r.cancel()
	case n > r.cancelAt:
		r.after.Add(int64(len(p)))
	}
	return r.Reader.ReadAt(p, off)
}

// How soon a call ends after its context is a matter of how much it still reads
// or copies. That is bounded, however large the file.
func TestWorkAfterTheContextHasEnded(t *testing.T) {
	const workers = 2
	content := snaptest.NewDB().Large(short.Or(60_000, 8000), 1000).Bytes(t, true)
	size := int64(len(content)) - 32
	for name, tt := range map[string]struct {
		bound int // bytes
		read  func(context.Context, *cancellingReaderAt) error
	}{
		"digest": {1 << 20, func(ctx context.Context, r *cancellingReaderAt) error {
			return trailer.CheckFile(ctx, r, size, func(int64) {})
		}},
		"Status": {workers * 256 << 10, func(ctx context.Context, r *cancellingReaderAt) error {
			_, err := inspect.Database(ctx, r, size, false, boltfile.Options{Workers: workers})
			return err
		}},
		"Verify": {workers * 256 << 10, func(ctx context.Context, r *cancellingReaderAt) error {
			_, err := inspect.Database(ctx, r, size, true, boltfile.Options{Workers: workers})
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, at := range []int64{1, 4, 10} {
				ctx, cancel := context.WithCancel(t.Context())
				r := &cancellingReaderAt{Reader: bytes.NewReader(content), cancelAt: at, cancel: cancel}
				require.ErrorIs(t, tt.read(ctx, r), context.Canceled)
				t.Logf("%d bytes read after the context had ended at read %d", r.after.Load(), at)
				require.LessOrEqual(t, r.after.Load(), int64(tt.bound))
			}
		})
	}
}
