package inspect_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// streamed are snapshots of less than a block, of blocks and of one to the byte.
func streamed(t *testing.T) map[string][]byte {
	return map[string][]byte{
		"small":         snaptest.History(t).Bytes(t, true),
		"large":         snaptest.NewDB().Large(4000, 1000).Bytes(t, true),
		"large pages":   snaptest.NewDB().PageSize(64<<10).Large(4000, 1000).Bytes(t, true),
		"whole blocks":  padded(t, 3<<20),
		"a block, less": padded(t, 1<<20-512),
	}
}

// padded is a snapshot of a database with free sectors behind it, size bytes large.
func padded(t *testing.T, size int) []byte {
	db := snaptest.NewDB().Put("a", "b").Bytes(t, false)
	require.Less(t, len(db), size)
	return snaptest.WithTrailer(append(db, make([]byte, size-len(db))...))
}

func TestVerifyFrom(t *testing.T) {
	for name, content := range streamed(t) {
		t.Run(name, func(t *testing.T) {
			snaptest.NoLeaks(t)
			var zipped bytes.Buffer
			zip := gzip.NewWriter(&zipped)
			_, err := zip.Write(content)
			require.NoError(t, err)
			require.NoError(t, zip.Close())
			unzip, err := gzip.NewReader(&zipped)
			require.NoError(t, err)
			for how, r := range map[string]io.Reader{
				"gzip":        unzip,
				"plain":       bytes.NewReader(content),
				"odd pieces":  pieces{bytes.NewReader(content), 7919},
				"EOF at once": &finalReader{content},
			} {
				var rec apitest.Recorder
				saved, err := snapshot.New(snapshot.WithProgress(rec.Report)).VerifyFrom(t.Context(), r)
				require.NoError(t, err, how)
				require.Positive(t, saved.Took)
				saved.Took = 0
				require.Equal(t, snapshot.Saved{Size: int64(len(content)), SHA256: sha256.Sum256(content[:len(content)-32])}, saved)
				requireStreamProgress(t, rec.All, int64(len(content)))
			}
		})
	}
}

// requireStreamProgress checks reports that have no total until the last one.
func requireStreamProgress(t *testing.T, all []snapshot.Progress, size int64) {
	t.Helper()
	require.GreaterOrEqual(t, len(all), 2)
	for i, p := range all {
		want := snapshot.Progress{Op: "verify", Phase: snapshot.PhaseRead, Done: p.Done}
		if i == 0 {
			want.Done = 0
		}
		if i == len(all)-1 {
			want.Done, want.Total = size, size
		}
		require.Equal(t, want, p)
	}
}

type pieces struct {
	r io.Reader
	n int
}

func (p pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), p.n)]) }

// finalReader returns io.EOF with the last bytes.
type finalReader struct{ rest []byte }

func (f *finalReader) Read(b []byte) (int, error) {
	n := copy(b, f.rest)
	if f.rest = f.rest[n:]; len(f.rest) == 0 {
		return n, io.EOF
	}
	return n, nil
}

// What is wrong with a stream is said as it is of a file.
func TestVerifyFromRefuses(t *testing.T) {
	large := snaptest.NewDB().Large(4000, 1000).Bytes(t, true)
	small := snaptest.History(t).Bytes(t, true)
	flipped := func(content []byte, at int) []byte {
		content = bytes.Clone(content)
		content[at] ^= 0x10
		return content
	}
	other, err := os.ReadFile(filepath.Join("..", "..", "testdata", "byteorder", otherOrder()+".db.gz"))
	require.NoError(t, err)
	unzip, err := gzip.NewReader(bytes.NewReader(other))
	require.NoError(t, err)
	other, err = io.ReadAll(unzip)
	require.NoError(t, err)
	// A database of the other order that is longer than a block.
	longOther := snaptest.WithTrailer(append(bytes.Clone(other[:len(other)-32]), make([]byte, 2<<20)...))
	short := snaptest.WithTrailer(bytes.Clone(large[:2<<20]))
	for name, tc := range map[string]struct {
		content []byte
		want    []error
	}{
		"empty":                            {nil, []error{snapshot.ErrNoTrailer, snapshot.ErrTruncated}},
		"a db file":                        {small[:len(small)-32], []error{snapshot.ErrNoTrailer}},
		"a large db file":                  {large[:len(large)-32], []error{snapshot.ErrNoTrailer}},
		"cut":                              {large[:3<<20], []error{snapshot.ErrNoTrailer, snapshot.ErrTruncated}},
		"cut small":                        {small[:8192], []error{snapshot.ErrNoTrailer, snapshot.ErrTruncated}},
		"cut in the trailer":               {large[:len(large)-1], []error{snapshot.ErrNoTrailer}},
		"cut so that a trailer could be":   {large[:2<<20+32], []error{snapshot.ErrChecksum, snapshot.ErrTruncated}},
		"flipped at the beginning":         {flipped(large, 30_000), []error{snapshot.ErrChecksum}},
		"flipped at the end":               {flipped(large, len(large)-33), []error{snapshot.ErrChecksum}},
		"flipped trailer":                  {flipped(large, len(large)-1), []error{snapshot.ErrChecksum}},
		"flipped small":                    {flipped(small, 30_000), []error{snapshot.ErrChecksum}},
		"shorter than its meta page says":  {short, []error{snapshot.ErrCorrupt, snapshot.ErrTruncated}},
		"not a database":                   {snaptest.WithTrailer(snaptest.Opaque(64 << 10)), []error{snapshot.ErrCorrupt}},
		"not a database, large":            {snaptest.WithTrailer(snaptest.Opaque(3 << 20)), []error{snapshot.ErrCorrupt}},
		"not a database and no trailer":    {snaptest.Opaque(5000), []error{snapshot.ErrCorrupt}},
		"other byte order":                 {other, []error{snapshot.ErrByteOrder}},
		"other byte order, large":          {longOther, []error{snapshot.ErrByteOrder}},
		"other byte order, flipped":        {flipped(other, len(other)-40), []error{snapshot.ErrByteOrder, snapshot.ErrChecksum}},
		"other byte order, large, flipped": {flipped(longOther, 2<<20), []error{snapshot.ErrByteOrder, snapshot.ErrChecksum}},
		"other byte order, no trailer":     {other[:len(other)-32], []error{snapshot.ErrByteOrder, snapshot.ErrNoTrailer}},
	} {
		t.Run(name, func(t *testing.T) {
			snaptest.NoLeaks(t)
			var rec apitest.Recorder
			saved, err := snapshot.New(snapshot.WithProgress(rec.Report)).VerifyFrom(t.Context(), bytes.NewReader(tc.content))
			require.Zero(t, saved)
			for _, sentinel := range []error{
				snapshot.ErrNoTrailer, snapshot.ErrTruncated, snapshot.ErrChecksum, snapshot.ErrCorrupt, snapshot.ErrByteOrder,
			} {
				wanted := false
				for _, want := range tc.want {
					wanted = wanted || want == sentinel
				}
				require.Equal(t, wanted, errors.Is(err, sentinel), "%v: %v", sentinel, err)
			}
			require.Zero(t, rec.All[len(rec.All)-1].Total, "reported as done")
		})
	}
}

func otherOrder() string {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return "big-endian"
	}
	return "little-endian"
}

// A stream that is no database is not read to its end.
func TestVerifyFromStopsWhereNothingCanCome(t *testing.T) {
	r := bytes.NewReader(snaptest.Opaque(8 << 20))
	_, err := snapshot.New().VerifyFrom(t.Context(), r)
	require.ErrorIs(t, err, snapshot.ErrCorrupt)
	require.Equal(t, 7<<20, r.Len())
}

var errReader = errors.New("the reader's own error")

// readerFunc is a reader that is a function.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestVerifyFromFaultyReaders(t *testing.T) {
	content := snaptest.NewDB().Large(4000, 1000).Bytes(t, true)
	for name, tc := range map[string]struct {
		then func(p []byte) (int, error)
		want error
	}{
		"an error":         {func([]byte) (int, error) { return 0, errReader }, errReader},
		"a cut gzip":       {func([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }, snapshot.ErrTruncated},
		"no progress":      {func([]byte) (int, error) { return 0, nil }, io.ErrNoProgress},
		"more than fits":   {func(p []byte) (int, error) { return len(p) + 1, nil }, nil},
		"less than none":   {func([]byte) (int, error) { return -1, nil }, nil},
		"less, and an end": {func([]byte) (int, error) { return -1, io.EOF }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			snaptest.NoLeaks(t)
			for _, size := range []int64{0, 100, 2<<20 + 100} {
				r := io.LimitReader(bytes.NewReader(content), size)
				saved, err := snapshot.New().VerifyFrom(t.Context(), readerFunc(func(p []byte) (int, error) {
					if n, err := r.Read(p); err == nil {
						return n, nil
					}
					return tc.then(p)
				}))
				require.Error(t, err)
				require.Zero(t, saved)
				if tc.want != nil {
					require.ErrorIs(t, err, tc.want)
				} else {
					require.ErrorContains(t, err, "a reader returned")
				}
			}
		})
	}
}

// A Read cannot be interrupted: the call ends after it, and reads nothing more.
func TestVerifyFromCancelled(t *testing.T) {
	snaptest.NoLeaks(t)
	content := snaptest.NewDB().Large(4000, 1000).Bytes(t, true)
	reads := (len(content) + 1<<20 - 1) / (1 << 20)
	for last := range reads + 2 {
		ctx, cancel := context.WithCancel(t.Context())
		n, r := 0, bytes.NewReader(content)
		if last == 0 {
			cancel()
		}
		_, err := snapshot.New().VerifyFrom(ctx, readerFunc(func(p []byte) (int, error) {
			if n++; n == last {
				cancel()
			}
			return r.Read(p)
		}))
		cancel()
		require.ErrorIs(t, err, context.Canceled, "at read %d of %d", last, reads)
		require.Equal(t, last, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m := snapshot.New(snapshot.WithProgress(func(snapshot.Progress) { cancel() }))
	_, err := m.VerifyFrom(ctx, readerFunc(func([]byte) (int, error) { panic("read") }))
	require.ErrorIs(t, err, context.Canceled)
}

// A panic of the reader, or of a report, is the caller's and leaves no goroutine.
func TestVerifyFromPanics(t *testing.T) {
	content := snaptest.NewDB().Large(4000, 1000).Bytes(t, true)
	for at := range 4 {
		snaptest.NoLeaks(t)
		n, r := at, bytes.NewReader(content)
		require.PanicsWithValue(t, errReader, func() {
			_, _ = snapshot.New().VerifyFrom(context.Background(), readerFunc(func(p []byte) (int, error) {
				if n--; n < 0 {
					panic(errReader)
				}
				return r.Read(p)
			}))
		})
		n = at
		m := snapshot.New(snapshot.WithProgress(func(snapshot.Progress) {
			if n--; n < 0 {
				panic(errReader)
			}
		}))
		require.PanicsWithValue(t, errReader, func() { _, _ = m.VerifyFrom(context.Background(), bytes.NewReader(content)) })
	}
}
