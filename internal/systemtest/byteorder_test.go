package systemtest_test

// A snapshot of a machine of the other byte order is refused for that reason.
// In every run. -update writes the fixture of this machine's byte order.

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// The same records, written by machines of either byte order: see
// testdata/byteorder/README.md.
const (
	bigEndian    = "big-endian"
	littleEndian = "little-endian"
)

func byteOrders() (own, other string) {
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		return bigEndian, littleEndian
	}
	return littleEndian, bigEndian
}

func byteOrderDB() *snaptest.DB {
	db := snaptest.NewDB().PageSize(1024).StorageVersion("3.7.0").ConsistentIndex(7).Term(2)
	for i := range 300 {
		db.Put(fmt.Sprintf("key-%03d", i%250), fmt.Sprintf("value %d", i))
	}
	return db.Delete("key-007").Put("over a page", string(make([]byte, 3000)))
}

func byteOrderFixture(t *testing.T, order string) []byte {
	t.Helper()
	return unpackVector(t, filepath.Join("..", "..", "testdata", "byteorder", order+".db.gz"))
}

// A snapshot of a machine of the same byte order is read anywhere.
func TestByteOrderOfThisMachine(t *testing.T) {
	own, _ := byteOrders()
	const statusFile = "../../testdata/byteorder/status.json"
	if *update {
		var packed bytes.Buffer
		zw := gzip.NewWriter(&packed)
		_, err := zw.Write(byteOrderDB().Bytes(t, true))
		require.NoError(t, err)
		require.NoError(t, zw.Close())
		require.NoError(t, os.WriteFile(filepath.Join("..", "..", "testdata", "byteorder", own+".db.gz"), packed.Bytes(), 0o600))
	}
	path := filepath.Join(t.TempDir(), "db")
	require.NoError(t, os.WriteFile(path, byteOrderFixture(t, own), 0o600))
	got, err := snapshot.New().Verify(t.Context(), path)
	require.NoError(t, err)
	var want snapshot.Status
	b, err := os.ReadFile(statusFile)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &want))
	require.Equal(t, want, got, "the same of both orders")
	require.NoError(t, snapshot.New().Restore(apitest.Config(path, filepath.Join(t.TempDir(), "data"))))
}

// One of the other byte order is sound: it is refused for what it is, before
// anything is copied. Verify compares its digest all the same.
func TestByteOrderOfAnotherMachine(t *testing.T) {
	_, other := byteOrders()
	whole := byteOrderFixture(t, other)
	refused := func(t *testing.T, op string, err error) {
		t.Helper()
		require.ErrorIs(t, err, snapshot.ErrByteOrder, op)
		require.ErrorContains(t, err, "the database is "+other+", as on ")
		require.NotErrorIs(t, err, snapshot.ErrCorrupt)
	}
	sound := func(t *testing.T, op string, err error) {
		t.Helper()
		refused(t, op, err)
		for _, fault := range []error{snapshot.ErrChecksum, snapshot.ErrNoTrailer, snapshot.ErrTruncated} {
			require.NotErrorIs(t, err, fault, op)
		}
	}
	path := filepath.Join(t.TempDir(), "db")
	require.NoError(t, os.WriteFile(path, whole, 0o600))
	_, err := snapshot.New().Status(path)
	sound(t, "status", err)
	everyReader(t, whole, []bool{false, true}, sound)

	t.Run("db file", func(t *testing.T) {
		everyReader(t, whole[:len(whole)-32], []bool{false}, func(t *testing.T, op string, err error) {
			refused(t, op, err)
			require.ErrorIs(t, err, snapshot.ErrNoTrailer)
		})
	})
	t.Run("digest", func(t *testing.T) {
		damaged := bytes.Clone(whole)
		damaged[len(damaged)/2] ^= 1
		everyReader(t, damaged, []bool{false}, func(t *testing.T, op string, err error) {
			refused(t, op, err)
			if op == "verify" {
				require.ErrorIs(t, err, snapshot.ErrChecksum)
			}
		})
	})
	t.Run("cut", func(t *testing.T) {
		everyReader(t, whole[:10*1024+32], []bool{true}, func(t *testing.T, op string, err error) {
			require.ErrorIs(t, err, snapshot.ErrByteOrder)
			require.ErrorIs(t, err, snapshot.ErrTruncated)
		})
	})
	t.Run("Save", func(t *testing.T) {
		s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(whole[:len(whole)-32]) })
		path := filepath.Join(t.TempDir(), "saved")
		require.NoError(t, snapshot.New().Save(t.Context(), s.ClientConfig(), path))
		saved, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(whole, saved))
	})
}
