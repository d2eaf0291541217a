package inspect_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/inspect"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
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

// What RestoreFrom refuses, it refuses before it reads.
func TestRestoreFromRefuses(t *testing.T) {
	dir := t.TempDir()
	withPath := apitest.Config(filepath.Join(dir, "db"), filepath.Join(dir, "data"))
	noName := apitest.Config("", filepath.Join(dir, "data"))
	noName.Name = ""
	staging := apitest.Config("", filepath.Join(dir, "data"))
	staging.OutputWALDir = filepath.Join(dir, ".data.restore", "wal") // known when it is staged
	for name, cfg := range map[string]snapshot.RestoreConfig{
		"path of a file": withPath, "no name": noName, "WAL where data is staged": staging,
	} {
		t.Run(name, func(t *testing.T) {
			r := bytes.NewReader(make([]byte, 100))
			require.ErrorIs(t, snapshot.New().RestoreFrom(t.Context(), r, cfg), snapshot.ErrConfig)
			require.Equal(t, 100, r.Len())
			require.Empty(t, snaptest.TreeList(t, dir))
		})
	}
}

// endingReader ends the context at its second read.
type endingReader struct {
	io.Reader
	cancel context.CancelFunc
	reads  int
}

func (r *endingReader) Read(p []byte) (int, error) {
	if r.reads++; r.reads == 2 {
		r.cancel()
	}
	return r.Reader.Read(p)
}

// A context that ends while RestoreFrom reads is heeded before the next Read.
func TestRestoreFromCancelledBetweenReads(t *testing.T) {
	content := snaptest.NewDB().Large(3000, 1000).Bytes(t, true)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dir := t.TempDir()
	r := &endingReader{Reader: bytes.NewReader(content), cancel: cancel}
	err := snapshot.New().RestoreFrom(ctx, r, apitest.Config("", filepath.Join(dir, "data")))
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 2, r.reads)
	require.Empty(t, snaptest.TreeList(t, dir))
}

// A disk that fails while RestoreFrom reads ends it before the next Read.
func TestEveryWriteOfRestoreFromFails(t *testing.T) {
	content := snaptest.NewDB().Large(5000, 1000).Bytes(t, true)
	for _, fault := range []error{syscall.EIO, durabletest.ErrShortWrite} {
		t.Run(fault.Error(), func(t *testing.T) {
			apitest.Sweep(t, 0, 1, func(k int) *durabletest.Faults { return durabletest.FailAt(k, fault) }, func(f *durabletest.Faults) {
				dir := t.TempDir()
				fsys := durabletest.Wrap(durable.OS, apitest.WritesOnly{Faults: f}).NoSync()
				r := bytes.NewReader(content)
				err := apitest.OnFS(fsys, nil).RestoreFrom(t.Context(), r, apitest.Config("", filepath.Join(dir, "data")))
				at, hit := f.Hit()
				if !hit {
					require.NoError(t, err)
					return
				}
				apitest.RequireCause(t, err, fault, at)
				require.Empty(t, snaptest.TreeList(t, dir))
				if at.Size == 1<<20 {
					require.NotZero(t, r.Len(), "read on after %v", at)
				}
			})
		})
	}
}
