package trailer_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/trailer"
)

func database(size int) []byte {
	db := make([]byte, size)
	for i := range db {
		db[i] = byte(i * 7)
	}
	return db
}

func withTrailer(db []byte) []byte {
	sum := sha256.Sum256(db)
	return append(db[:len(db):len(db)], sum[:]...)
}

func TestPresent(t *testing.T) {
	for size, want := range map[int64]bool{
		-480: false, 0: false, 1: false, 31: false, 32: true, 33: false,
		512: false, 543: false, 544: true, 545: false, 4096: false, 4128: true,
		1<<40 + 32: true, 1<<40 + 64: false,
	} {
		require.Equal(t, want, trailer.Present(size), "%d bytes", size)
	}
}

func TestWriterSplits(t *testing.T) {
	for _, size := range []int{0, 512, 1024, 4096} {
		for _, piece := range []int{1, 5, 31, 32, 33, 64, 500, 1 << 20} {
			t.Run(fmt.Sprintf("%d bytes in pieces of %d", size, piece), func(t *testing.T) {
				db := database(size)
				var passed bytes.Buffer
				w := trailer.NewWriter(&passed)
				writeAll(t, w, withTrailer(db), piece)
				d, err := w.Finish()
				require.NoError(t, err)
				sum := sha256.Sum256(db)
				require.Equal(t, trailer.Digest{Size: int64(size), Sum: sum, Present: true, Trailer: sum}, d)
				require.NoError(t, d.Check())
				require.Equal(t, len(db), passed.Len())
				require.True(t, bytes.Equal(db, passed.Bytes()))
			})
		}
	}
}

func writeAll(t *testing.T, w io.Writer, b []byte, piece int) {
	t.Helper()
	for len(b) > 0 {
		n, err := w.Write(b[:min(piece, len(b))])
		require.NoError(t, err)
		b = b[n:]
	}
}

func TestWriterWithoutTrailer(t *testing.T) {
	for _, size := range []int{0, 1, 31, 33, 512, 4096, 4096 + 31, 4096 + 33} {
		for _, piece := range []int{1, 32, 1 << 20} {
			t.Run(fmt.Sprintf("%d bytes in pieces of %d", size, piece), func(t *testing.T) {
				db := database(size)
				var passed bytes.Buffer
				w := trailer.NewWriter(&passed)
				writeAll(t, w, db, piece)
				d, err := w.Finish()
				require.NoError(t, err)
				require.Equal(t, trailer.Digest{Size: int64(size), Sum: sha256.Sum256(db)}, d)
				require.ErrorIs(t, d.Check(), fault.ErrNoTrailer)
				require.True(t, bytes.Equal(db, passed.Bytes()), "the bytes held back are missing")
			})
		}
	}
}

func TestWriterMismatch(t *testing.T) {
	good := withTrailer(database(4096))
	for _, at := range []int{0, 2048, 4095, 4096, 4127} {
		bad := bytes.Clone(good)
		bad[at] ^= 1
		w := trailer.NewWriter(io.Discard)
		writeAll(t, w, bad, 1000)
		d, err := w.Finish()
		require.NoError(t, err)
		err = d.Check()
		require.ErrorIs(t, err, fault.ErrChecksum)
		require.ErrorContains(t, err, fmt.Sprintf("got %x, want %x", d.Sum, bad[4096:]))
	}
}

var errFull = errors.New("full")

// failingWriter takes n bytes.
type failingWriter struct {
	n   int
	err error
}

func (w *failingWriter) Write(p []byte) (int, error) {
	if len(p) <= w.n {
		w.n -= len(p)
		return len(p), nil
	}
	return w.n, w.err
}

func TestWriterUnderlyingFails(t *testing.T) {
	for _, room := range []int{0, 10, 40, 1000, 4095} {
		for name, tc := range map[string]struct{ err, want error }{
			"error": {errFull, errFull},
			"short": {nil, io.ErrShortWrite},
		} {
			t.Run(fmt.Sprintf("%s after %d bytes", name, room), func(t *testing.T) {
				w := trailer.NewWriter(&failingWriter{n: room, err: tc.err})
				_, err := io.CopyBuffer(w, iotest.OneByteReader(bytes.NewReader(withTrailer(database(4096)))), make([]byte, 7))
				require.ErrorIs(t, err, tc.want)
				_, err = w.Write([]byte{1})
				require.ErrorIs(t, err, tc.want)
				_, err = w.Finish()
				require.ErrorIs(t, err, tc.want)
			})
		}
	}
	t.Run("the bytes held back", func(t *testing.T) {
		w := trailer.NewWriter(&failingWriter{n: 4090, err: errFull})
		writeAll(t, w, database(4096), 4096)
		d, err := w.Finish()
		require.ErrorIs(t, err, errFull)
		require.Zero(t, d)
	})
	t.Run("a large write", func(t *testing.T) {
		w := trailer.NewWriter(&failingWriter{n: 10, err: errFull})
		_, err := w.Write(database(4096))
		require.ErrorIs(t, err, errFull)
	})
}

// failingOnce fails at one write, counted from 0.
type failingOnce struct {
	bytes.Buffer
	writes, failAt int
}

func (w *failingOnce) Write(p []byte) (int, error) {
	w.writes++
	if w.writes-1 == w.failAt {
		return 0, errFull
	}
	return w.Buffer.Write(p)
}

// After an error nothing is passed on any more, also where the next write would
// succeed: there would be a hole.
func TestWriterErrorStays(t *testing.T) {
	file := withTrailer(database(1024))
	for failAt := range 4 {
		to := &failingOnce{failAt: failAt}
		w := trailer.NewWriter(to)
		var err error
		n := 0
		rest := file
		for len(rest) > 0 && err == nil {
			n, err = w.Write(rest[:min(100, len(rest))])
			rest = rest[min(100, len(rest)):]
		}
		require.ErrorIs(t, err, errFull)
		require.Zero(t, n)
		passed := to.Len()
		for range 3 {
			n, err := w.Write(make([]byte, 100))
			require.ErrorIs(t, err, errFull)
			require.Zero(t, n)
		}
		d, err := w.Finish()
		require.ErrorIs(t, err, errFull)
		require.Zero(t, d)
		require.Equal(t, passed, to.Len(), "passed on after an error")
		require.Equal(t, failAt+1, to.writes)
	}
}

func TestRead(t *testing.T) {
	db := database(1024)
	file := withTrailer(db)
	got, err := trailer.Read(bytes.NewReader(file), int64(len(file)))
	require.NoError(t, err)
	require.Equal(t, sha256.Sum256(db), got)

	got, err = trailer.Read(bytes.NewReader(db), int64(len(db)))
	require.ErrorIs(t, err, fault.ErrNoTrailer)
	require.ErrorContains(t, err, "1024 bytes")
	require.Zero(t, got)

	got, err = trailer.Read(bytes.NewReader(file[:1040]), int64(len(file)))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Zero(t, got)

	_, err = trailer.Read(failingReaderAt{}, 544)
	require.ErrorIs(t, err, errFull)
	got, err = trailer.Read(shortReaderAt{}, 544)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Zero(t, got)
}

// shortReaderAt does not say why it reads too little.
type shortReaderAt struct{}

func (shortReaderAt) ReadAt(p []byte, _ int64) (int, error) { return len(p) - 1, nil }

type failingReaderAt struct{}

func (failingReaderAt) ReadAt([]byte, int64) (int, error) { return 0, errFull }

func FuzzWriter(f *testing.F) {
	f.Add(withTrailer(database(512)), uint16(100))
	f.Add(database(600), uint16(1))
	f.Add([]byte{}, uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, piece uint16) {
		var passed bytes.Buffer
		w := trailer.NewWriter(&passed)
		writeAll(t, w, b, int(piece)+1)
		d, err := w.Finish()
		require.NoError(t, err)
		require.Equal(t, trailer.Present(int64(len(b))), d.Present)
		whole := passed.Bytes()
		require.Equal(t, sha256.Sum256(whole), d.Sum)
		require.EqualValues(t, len(whole), d.Size)
		if d.Present {
			whole = append(whole, d.Trailer[:]...)
		}
		require.True(t, bytes.Equal(b, whole))
	})
}

func BenchmarkWriter(b *testing.B) {
	for _, piece := range []int{32 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", piece>>10), func(b *testing.B) {
			p := database(piece)
			w := trailer.NewWriter(io.Discard)
			b.SetBytes(int64(piece))
			for b.Loop() {
				if _, err := w.Write(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
