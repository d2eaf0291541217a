package keyspace_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"etcd.example/snapshot/internal/keyspace"
)

func key(main, sub int64, tombstone bool) []byte {
	b := mvcc.RevToBytes(mvcc.Revision{Main: main, Sub: sub}, mvcc.NewRevBytes())
	if tombstone {
		b = append(b, 't')
	}
	return b
}

func TestParseRevision(t *testing.T) {
	for _, tt := range []struct {
		key  []byte
		want keyspace.Revision
	}{
		{key(1, 0, false), keyspace.Revision{Main: 1}},
		{key(1<<62, 77, false), keyspace.Revision{Main: 1 << 62, Sub: 77}},
		{key(5, 3, true), keyspace.Revision{Main: 5, Sub: 3, Tombstone: true}},
	} {
		got, err := keyspace.ParseRevision(tt.key)
		require.NoError(t, err)
		require.Equal(t, tt.want, got)
		require.Equal(t, tt.key, got.Key())
	}
	for name, bad := range map[string][]byte{
		"0 bytes":   nil,
		"16 bytes":  key(1, 0, false)[:16],
		"19 bytes":  append(key(1, 0, true), 0),
		"separator": bytes.Replace(key(1, 0, false), []byte{'_'}, []byte{'-'}, 1),
		"negative":  append([]byte{0x80}, key(1, 0, false)[1:]...),
		"mark":      append(key(1, 0, false), 'T'),
	} {
		got, err := keyspace.ParseRevision(bad)
		require.ErrorIs(t, err, keyspace.ErrMalformed, name)
		require.ErrorContains(t, err, name)
		require.Zero(t, got)
	}
	negativeSub := key(1, 0, false)
	negativeSub[9] = 0x80
	_, err := keyspace.ParseRevision(negativeSub)
	require.ErrorContains(t, err, "negative")
}

func TestCompare(t *testing.T) {
	order := []keyspace.Revision{{Main: 1}, {Main: 1, Sub: 1}, {Main: 1, Sub: 2}, {Main: 2}, {Main: 3, Sub: 9}}
	for i, a := range order {
		for j, b := range order {
			require.Equal(t, min(max(i-j, -1), 1), a.Compare(b), "%v and %v", a, b)
		}
	}
	require.Zero(t, keyspace.Revision{Main: 4, Tombstone: true}.Compare(keyspace.Revision{Main: 4}))
}

func record(tb testing.TB, kv *mvccpb.KeyValue) []byte {
	b, err := proto.Marshal(kv)
	require.NoError(tb, err)
	return b
}

// records are KeyValues in encodings usual and unusual.
func records(tb testing.TB) [][]byte {
	full := record(tb, &mvccpb.KeyValue{Key: []byte("foo"), CreateRevision: 3, ModRevision: 9, Version: 4, Value: []byte("bar"), Lease: 1 << 60})
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 5)
	unknown = protowire.AppendFixed32(protowire.AppendTag(unknown, 7, protowire.Fixed32Type), 5)
	unknown = protowire.AppendFixed64(protowire.AppendTag(unknown, 8, protowire.Fixed64Type), 5)
	unknown = protowire.AppendBytes(protowire.AppendTag(unknown, 9, protowire.BytesType), []byte("x"))
	otherType := protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), []byte("not a number"))
	otherType = protowire.AppendVarint(protowire.AppendTag(otherType, 1, protowire.VarintType), 5)
	return [][]byte{
		nil,
		full,
		record(tb, &mvccpb.KeyValue{Key: []byte("gone")}),
		append(bytes.Clone(full), record(tb, &mvccpb.KeyValue{Key: []byte("last one counts"), ModRevision: 10})...),
		append(bytes.Clone(unknown), full...),
		append(bytes.Clone(full), unknown...),
		append(bytes.Clone(full), otherType...),
		record(tb, &mvccpb.KeyValue{Key: []byte("negative"), ModRevision: -7, Version: -1}),
		full[:len(full)-1],
		full[:4],
		full[:1],
		{0x00},
		{0x00, 0x00},
		{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
		{0x0b, 0x0c}, // a group
		{0x0c},
		{0x18, 0x80},
		{0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	}
}

// checkRecord holds both readers against proto.Unmarshal.
func checkRecord(t *testing.T, b []byte) {
	var want mvccpb.KeyValue
	wantErr := proto.Unmarshal(b, &want)

	got, err := keyspace.ParseRecord(b)
	if wantErr != nil {
		require.ErrorIs(t, err, keyspace.ErrMalformed, "%x", b)
		require.Zero(t, got)
	} else {
		require.NoError(t, err, "%x", b)
		require.True(t, bytes.Equal(want.Key, got.Key), "%x", b)
		require.True(t, bytes.Equal(want.Value, got.Value), "%x", b)
		require.Equal(t, []int64{want.ModRevision, want.CreateRevision, want.Version, want.Lease},
			[]int64{got.ModRevision, got.CreateRevision, got.Version, got.Lease})
	}

	var read bytes.Buffer
	rec, err := keyspace.ReadRecord(bytes.NewReader(b), int64(len(b)), func() io.Writer {
		read.Reset()
		return &read
	})
	if wantErr != nil {
		require.Error(t, err, "%x", b)
	}
	if err != nil {
		require.ErrorIs(t, err, keyspace.ErrMalformed, "%x", b)
		require.Zero(t, rec)
		if wantErr == nil { // groups, which only ParseRecord skips
			require.ErrorContains(t, err, "of wire type 3", "%x", b)
		}
		return
	}
	require.True(t, bytes.Equal(got.Key, read.Bytes()))
	got.Key, got.Value = nil, nil
	require.Equal(t, got, rec)
}

func TestRecordsAgreeWithProtobuf(t *testing.T) {
	for _, b := range records(t) {
		checkRecord(t, b)
	}
}

func TestReadRecordStreams(t *testing.T) {
	b := record(t, &mvccpb.KeyValue{Key: bytes.Repeat([]byte("k"), 200_000), ModRevision: 7, Value: make([]byte, 3<<20)})
	var got bytes.Buffer
	rec, err := keyspace.ReadRecord(io.MultiReader(bytes.NewReader(b), bytes.NewReader(make([]byte, 100))), int64(len(b)), func() io.Writer { return &got })
	require.NoError(t, err)
	require.Equal(t, int64(7), rec.ModRevision)
	require.Equal(t, 200_000, got.Len())
}

type brokenReader struct{ after io.Reader }

func (r *brokenReader) Read(p []byte) (int, error) {
	n, err := r.after.Read(p)
	if err == io.EOF {
		err = io.ErrClosedPipe
	}
	return n, err
}

func TestReadRecordFails(t *testing.T) {
	b := record(t, &mvccpb.KeyValue{Key: []byte("k"), ModRevision: 7, Value: make([]byte, 100_000)})
	for _, n := range []int{0, 1, 3, 10, 70_000} {
		_, err := keyspace.ReadRecord(&brokenReader{bytes.NewReader(b[:n])}, int64(len(b)), func() io.Writer { return io.Discard })
		require.ErrorIs(t, err, io.ErrClosedPipe, "after %d bytes", n)
	}
	_, err := keyspace.ReadRecord(bytes.NewReader(b[:70_000]), int64(len(b)), func() io.Writer { return io.Discard })
	require.ErrorIs(t, err, io.EOF, "a file that shrinks")
}

// hiccup fails once, after so many bytes, and then goes on.
type hiccup struct {
	b    []byte
	left int
}

func (h *hiccup) Read(p []byte) (int, error) {
	if h.left == 0 {
		h.left = -1
		return 0, io.ErrClosedPipe
	}
	if len(h.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(1, len(p))], h.b)
	h.b = h.b[n:]
	h.left -= n
	return n, nil
}

// What a read has failed for stays unread, also where the next read succeeds.
func TestReadRecordFailsOnce(t *testing.T) {
	b := record(t, &mvccpb.KeyValue{Key: []byte("some key"), CreateRevision: 300, ModRevision: 300, Version: 1, Value: make([]byte, 50), Lease: 1 << 40})
	for at := range b {
		_, err := keyspace.ReadRecord(&hiccup{b, at}, int64(len(b)), func() io.Writer { return io.Discard })
		require.ErrorIs(t, err, io.ErrClosedPipe, "after %d bytes", at)
	}
}

func FuzzRecord(f *testing.F) {
	for _, b := range records(f) {
		f.Add(b)
	}
	f.Fuzz(checkRecord)
}

func FuzzRevision(f *testing.F) {
	for _, b := range [][]byte{nil, key(1, 0, false), key(7, 3, true), key(1, 0, true)[:16], append(key(1, 0, false), 'x')} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := keyspace.ParseRevision(b)
		want, ok := reference(b)
		if !ok {
			require.ErrorIs(t, err, keyspace.ErrMalformed)
			require.Zero(t, got)
			return
		}
		if len(b) == 18 && b[17] != 't' {
			require.ErrorIs(t, err, keyspace.ErrMalformed, "etcd takes this for a put; it writes no such key")
			return
		}
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, b, got.Key())
	})
}

// reference asks etcd, whose reader panics on what it does not like.
func reference(b []byte) (r keyspace.Revision, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	rev := mvcc.BytesToRev(b)
	return keyspace.Revision{Main: rev.Main, Sub: rev.Sub, Tombstone: mvcc.IsTombstone(b)}, true
}

func TestFuzzCorpus(t *testing.T) {
	for _, target := range []string{"FuzzRecord", "FuzzRevision"} {
		entries, err := os.ReadDir(filepath.Join("testdata", "fuzz", target))
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(entries), 5, target)
	}
}

func ExampleParseRevision() {
	r, err := keyspace.ParseRevision([]byte("\x00\x00\x00\x00\x00\x00\x00\x2a_\x00\x00\x00\x00\x00\x00\x00\x01t"))
	fmt.Println(r, r.Tombstone, err)
	// Output: 42.1 true <nil>
}

func BenchmarkParseRevision(b *testing.B) {
	k := key(123_456, 7, false)
	for b.Loop() {
		if _, err := keyspace.ParseRevision(k); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseRecord(b *testing.B) {
	record, err := proto.Marshal(&mvccpb.KeyValue{
		Key: []byte("/registry/pods/default/web-0"), Value: make([]byte, 1000),
		CreateRevision: 123_000, ModRevision: 123_456, Version: 12,
	})
	require.NoError(b, err)
	for b.Loop() {
		if _, err := keyspace.ParseRecord(record); err != nil {
			b.Fatal(err)
		}
	}
}
