package snapshot_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// What Status has no opinion on, Verify does.
func TestVerifyIsStricter(t *testing.T) {
	const modRevision5 = "\x0a\x01k\x18\x05"
	for name, tt := range map[string]struct {
		db   *snaptest.DB
		want string
	}{
		"mod revision": {snaptest.NewDB().Raw("key", snaptest.RevisionKey(6, 0, ""), modRevision5), "revision 6.0: got mod revision 5, want 6"},
		"no record":    {snaptest.NewDB().Raw("key", snaptest.RevisionKey(6, 0, ""), "\x0a\x01k"), "got mod revision 0, want 6"},
		"put and tombstone at one revision": {
			snaptest.NewDB().Raw("key", snaptest.RevisionKey(5, 0, ""), modRevision5).Raw("key", snaptest.RevisionKey(5, 0, "t"), "\x0a\x01k"),
			"revision 5.0 follows 5.0",
		},
		"large": {snaptest.NewDB().Raw("key", snaptest.RevisionKey(6, 0, ""), modRevision5+"\x2a\x80\x80\x80\x04"+strings.Repeat("v", 8<<20)), "got mod revision 5, want 6"},
	} {
		t.Run(name, func(t *testing.T) {
			path := tt.db.Write(t, filepath.Join(t.TempDir(), "db"), true)
			_, err := snapshot.New().Status(path)
			require.NoError(t, err)
			st, err := snapshot.New().Verify(context.Background(), path)
			require.ErrorIs(t, err, snapshot.ErrCorrupt)
			require.ErrorContains(t, err, tt.want)
			require.Zero(t, st)
		})
	}
}

// Of a record that names its key twice the last one counts, in a large record as
// in a small one.
func TestStatusOfARepeatedKey(t *testing.T) {
	for _, size := range []int{10, 5 << 20} {
		put := protowire.AppendBytes([]byte("\x0a\x05other\x0a\x01k\x18\x02\x2a"), make([]byte, size))
		path := snaptest.NewDB().
			Raw("key", snaptest.RevisionKey(2, 0, ""), string(put)).
			Raw("key", snaptest.RevisionKey(3, 0, "t"), "\x0a\x01k").
			Write(t, filepath.Join(t.TempDir(), "db"), true)
		st, err := snapshot.New().Status(path)
		require.NoError(t, err)
		require.Zero(t, st.TotalKey)
		require.EqualValues(t, 3, st.Revision)
	}
}

// A put and a tombstone at one revision are noticed wherever they lie, also at
// the seam of two pieces that are read apart.
func TestVerifyNoticesOneRevisionTwiceAnywhere(t *testing.T) {
	const records = 150
	path := filepath.Join(snaptest.MemoryDir(t), "db")
	for twice := 1; twice <= records; twice += short.Step(1, 10) {
		db := snaptest.NewDB().PageSize(1024)
		for i := 1; i <= records; i++ {
			mod := protowire.AppendVarint([]byte("\x0a\x01k\x18"), uint64(i))
			value := protowire.AppendBytes(append(mod, 0x2a), make([]byte, 300))
			db.Raw("key", snaptest.RevisionKey(i, 0, ""), string(value))
		}
		db.Raw("key", snaptest.RevisionKey(twice, 0, "t"), "\x0a\x01k").Write(t, path, true)
		_, err := snapshot.New().Verify(context.Background(), path)
		require.ErrorIs(t, err, snapshot.ErrCorrupt)
		require.ErrorContains(t, err, fmt.Sprintf("revision %d.0 follows %d.0", twice, twice))
		_, err = snapshot.New().Status(path)
		require.NoError(t, err)
	}
}

// Every byte of the file counts: whichever is changed, Verify says so, and
// names the page where the refusedPages is hurt too.
func TestVerifyNoticesEveryByte(t *testing.T) {
	path := snaptest.NewDB().Put("a", "1").Put("b", "2").PageSize(1024).Write(t, filepath.Join(snaptest.MemoryDir(t), "db"), true)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	m := snapshot.New()
	refusedPages := 0
	for i := 0; i < len(whole); i += short.Step(1, 11) {
		damaged := append([]byte(nil), whole...)
		damaged[i] ^= 1 << (i % 8)
		require.NoError(t, os.WriteFile(path, damaged, 0o600))
		_, err := m.Verify(context.Background(), path)
		require.ErrorIs(t, err, snapshot.ErrChecksum, "byte %d", i)
		if errors.Is(err, snapshot.ErrCorrupt) {
			refusedPages++
		}
	}
	require.NotZero(t, refusedPages)
	for n := 0; n < len(whole); n += short.Step(1, 11) {
		require.NoError(t, os.WriteFile(path, whole[:n], 0o600))
		_, err := m.Verify(context.Background(), path)
		require.True(t, errors.Is(err, snapshot.ErrNoTrailer) || errors.Is(err, snapshot.ErrChecksum), "%d bytes: %v", n, err)
	}
}

func TestChecksumMessageCompares(t *testing.T) {
	path := snaptest.SmallFile(t)
	info, err := os.Stat(path)
	require.NoError(t, err)
	snaptest.Overwrite(t, path, info.Size()-32, make([]byte, 32))
	_, err = snapshot.New().Verify(context.Background(), path)
	require.ErrorIs(t, err, snapshot.ErrChecksum)
	require.Regexp(t, `got [0-9a-f]{64}, want 0{64}`, err.Error())
	_, err = snapshot.New().Status(path)
	require.NoError(t, err, "Status does not look at the digest")
}

// A database without bucket meta is that of no etcd: Restore refuses it, and
// Verify says so before. Status tells what is in it, as etcd's does.
func TestVerifyWithoutMeta(t *testing.T) {
	path := snaptest.NewDB().Put("a", "b").DropBucket("meta").Write(t, filepath.Join(t.TempDir(), "db"), true)
	_, err := snapshot.New().Verify(t.Context(), path)
	require.ErrorIs(t, err, snapshot.ErrCorrupt)
	require.Regexp(t, `page \d+: bucket "meta" is missing`, err.Error())
	require.ErrorIs(t, snapshot.New().Restore(apitest.Config(path, filepath.Join(t.TempDir(), "data"))), snapshot.ErrCorrupt)
	st, err := snapshot.New().Status(path)
	require.NoError(t, err)
	require.Equal(t, 1, st.TotalKey)
}
