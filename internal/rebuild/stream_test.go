package rebuild_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// pausing returns nothing for so many reads before each piece of 64 KiB.
type pausing struct {
	r      io.Reader
	pauses int
	paused int
}

func (r *pausing) Read(p []byte) (int, error) {
	if r.paused < r.pauses {
		r.paused++
		return 0, nil
	}
	r.paused = 0
	return r.r.Read(p[:min(len(p), 64<<10)])
}

// A reader may return nothing for a while: 100 times in a row are too many.
func TestRestoreFromPausingReader(t *testing.T) {
	path := snaptest.SmallFile(t)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	for pauses, want := range map[int]error{99: nil, 100: io.ErrNoProgress} {
		dir := t.TempDir()
		r := &pausing{r: bytes.NewReader(content), pauses: pauses}
		err := snapshot.New().RestoreFrom(t.Context(), r, apitest.Config("", filepath.Join(dir, "data")))
		require.ErrorIs(t, err, want)
		if want == nil {
			apitest.RequireSameDirectory(t, path, filepath.Join(dir, "data"))
			continue
		}
		require.Equal(t, pauses, r.paused)
		require.Empty(t, snaptest.TreeList(t, dir))
	}
}

// scribbling uses all of the buffer as scratch space, as an [io.Reader] may.
type scribbling struct{ r io.Reader }

func (s scribbling) Read(p []byte) (int, error) {
	n, err := s.r.Read(p[:min(len(p), 10_000)])
	for i := range p[n:] {
		p[n+i] = 0xee
	}
	return n, err
}

func TestRestoreFromScribblingReader(t *testing.T) {
	path := snaptest.SmallFile(t)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	for name, r := range map[string]io.Reader{
		"whole":       bytes.NewReader(content),
		"EOF by half": io.MultiReader(bytes.NewReader(content[:len(content)-7]), bytes.NewReader(content[len(content)-7:])),
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			require.NoError(t, snapshot.New().RestoreFrom(t.Context(), scribbling{r}, apitest.Config("", dir)))
			apitest.RequireSameDirectory(t, path, dir)
		})
	}
}

var errReader = errors.New("the reader panics")

// panicking panics at one read, counted from 0.
type panicking struct {
	r  io.Reader
	at int
}

func (r *panicking) Read(p []byte) (int, error) {
	if r.at--; r.at < 0 {
		panic(errReader)
	}
	return r.r.Read(p)
}

// When the reader panics, so does the call, which leaves no goroutine, no open
// file and nothing on disk. A restore to the same place then succeeds.
func TestRestoreFromPanickingReader(t *testing.T) {
	content := snaptest.NewDB().Large(3000, 1000).Bytes(t, true)
	for at := range 5 {
		snaptest.NoLeaks(t)
		dir := t.TempDir()
		cfg := apitest.Config("", filepath.Join(dir, "sub", "data"))
		fsys := durabletest.Wrap(durable.OS)
		m := apitest.OnFS(fsys, nil)
		require.PanicsWithValue(t, errReader, func() {
			_ = m.RestoreFrom(context.Background(), &panicking{bytes.NewReader(content), at}, cfg)
		})
		require.Zero(t, fsys.CloseAll(), "files left open")
		require.Empty(t, snaptest.TreeList(t, dir))
		require.NoError(t, m.RestoreFrom(t.Context(), bytes.NewReader(content), cfg))
	}
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
