package systemtest_test

// Snapshots of real servers of every minor version are read, verified and
// restored. In every run.

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// What real servers of every supported minor sent: see testdata/vectors/README.md.
var vectorVersions = []string{"v3.4", "v3.5", "v3.6", "v3.7", "v3.8"}

func TestVectors(t *testing.T) {
	const dir = "../../testdata/vectors"
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var found []string
	for _, e := range entries {
		if e.IsDir() {
			found = append(found, e.Name())
		}
	}
	require.Equal(t, vectorVersions, found)

	for _, version := range vectorVersions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			raw := unpackVector(t, filepath.Join(dir, version, "snapshot.db.gz"))
			path := filepath.Join(t.TempDir(), "snapshot.db")
			require.NoError(t, os.WriteFile(path, raw, 0o600))
			var want snapshot.Status
			b, err := os.ReadFile(filepath.Join(dir, version, "status.json"))
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(b, &want))
			require.NotZero(t, want.Revision)

			m := snapshot.New()
			if own, _ := byteOrders(); own == bigEndian { // the servers ran on amd64
				_, err := m.Verify(t.Context(), path)
				require.ErrorIs(t, err, snapshot.ErrByteOrder)
				require.NotErrorIs(t, err, snapshot.ErrChecksum)
				return
			}
			t.Run("status", func(t *testing.T) {
				got, err := m.Status(path)
				require.NoError(t, err)
				require.Equal(t, want, got)
			})
			t.Run("verify", func(t *testing.T) {
				got, err := m.Verify(t.Context(), path)
				require.NoError(t, err)
				require.Equal(t, want, got)
			})
			t.Run("restore", func(t *testing.T) { testVectorRestored(t, path, raw) })
			t.Run("flipped", func(t *testing.T) { testVectorFlipped(t, raw) })
		})
	}
}

func unpackVector(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	zr, err := gzip.NewReader(f)
	require.NoError(t, err)
	raw, err := io.ReadAll(zr)
	require.NoError(t, err)
	require.Equal(t, 32, len(raw)%512, "no trailer")
	return raw
}

// testVectorRestored compares every record of the restored database with the
// snapshot's: only the membership and the raft state may differ.
func testVectorRestored(t *testing.T, path string, raw []byte) {
	db := filepath.Join(t.TempDir(), "db")
	require.NoError(t, os.WriteFile(db, raw[:len(raw)-32], 0o600))
	want := vectorRecords(t, db)
	require.Len(t, want["alarm"], 1)
	for _, bucket := range []string{"key", "lease", "auth", "authUsers", "authRoles"} {
		require.NotEmpty(t, want[bucket], bucket)
	}

	for _, drop := range []bool{false, true} {
		cfg := apitest.Config(path, filepath.Join(t.TempDir(), "data"))
		cfg.DropAlarms = drop
		require.NoError(t, snapshot.New().Restore(cfg))
		got := vectorRecords(t, filepath.Join(cfg.OutputDataDir, "member", "snap", "db"))
		require.Len(t, got["members"], 1)
		require.Equal(t, want["meta"]["storageVersion"], got["meta"]["storageVersion"])
		require.Equal(t, want["meta"]["finishedCompactRev"], got["meta"]["finishedCompactRev"])
		if drop {
			require.Empty(t, got["alarm"])
			got["alarm"] = want["alarm"]
		}
		for bucket := range want {
			if !slices.Contains([]string{"members", "members_removed", "meta"}, bucket) {
				require.Equal(t, want[bucket], got[bucket], bucket)
			}
		}
		segments, err := filepath.Glob(filepath.Join(cfg.OutputDataDir, "member", "wal", "*.wal"))
		require.NoError(t, err)
		require.NotEmpty(t, segments)
	}
}

// vectorRecords reads all buckets of a database, by bucket and key.
func vectorRecords(t *testing.T, path string) map[string]map[string]string {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	require.NoError(t, err)
	records := map[string]map[string]string{}
	err = db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			bucket := map[string]string{}
			records[string(name)] = bucket
			return b.ForEach(func(k, v []byte) error {
				bucket[string(k)] = string(v)
				return nil
			})
		})
	})
	require.NoError(t, err)
	require.NoError(t, db.Close())
	return records
}

// testVectorFlipped flips a byte on every page, wherever on it, and in turn
// every byte of the trailer.
func testVectorFlipped(t *testing.T, raw []byte) {
	var offsets []int
	for i := 0; i < len(raw)-32; i += short.Step(1, 20) * (4096 - 97) {
		offsets = append(offsets, i)
	}
	for i := len(raw) - 32; i < len(raw); i += short.Step(1, 31) {
		offsets = append(offsets, i)
	}
	m := snapshot.New()
	path := filepath.Join(t.TempDir(), "flipped.db")
	cfg := apitest.Config(path, filepath.Join(t.TempDir(), "data"))
	for _, offset := range offsets {
		flipped := slices.Clone(raw)
		flipped[offset] ^= 0x10
		require.NoError(t, os.WriteFile(path, flipped, 0o600))
		_, err := m.Verify(t.Context(), path)
		require.ErrorIs(t, err, snapshot.ErrChecksum, "verify with byte %d flipped", offset)
		require.ErrorIs(t, m.Restore(cfg), snapshot.ErrChecksum, "restore with byte %d flipped", offset)
		require.NoDirExists(t, cfg.OutputDataDir)
	}
}
