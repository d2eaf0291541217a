package fetch_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
	"etcd.example/snapshot/internal/trailer"
)

// databaseOf returns a database of exactly that many bytes.
func databaseOf(t *testing.T, size int) []byte {
	t.Helper()
	for pad, tries := size-64<<10, 0; tries < 20; tries++ {
		db := snaptest.NewDB().Put("pad", string(snaptest.Opaque(pad))).Bytes(t, false)
		if len(db) == size {
			return db
		}
		pad += size - len(db)
	}
	t.Fatalf("no database of %d bytes", size)
	return nil
}

// What a failed SaveTo leaves is taken for a snapshot by nothing, although the
// pages of a database are good as far as they go: also where whole blocks hold
// all of it, and the trailer alone is missing.
func TestSaveToLeavesNothingThatIsAccepted(t *testing.T) {
	for name, size := range map[string]int{
		"one block":             1 << 20,
		"whole blocks":          4 << 20,
		"a page short of them":  2<<20 - 4096,
		"a page more than them": 2<<20 + 4096,
		"less than a block":     512 << 10,
	} {
		t.Run(name, func(t *testing.T) {
			if name != "one block" && name != "a page more than them" {
				short.Skip(t, "saves more sizes")
			}
			db := databaseOf(t, size)
			sum := sha256.Sum256(db)
			for how, script := range map[string]snaptest.Script{
				"no trailer":  func(c *snaptest.SnapshotCall) error { return c.SendDB(db) },
				"cut trailer": func(c *snaptest.SnapshotCall) error { return errors.Join(c.SendDB(db), c.Send(sum[:31], 0)) },
				"bad trailer": func(c *snaptest.SnapshotCall) error {
					return errors.Join(c.SendDB(db), c.Send(make([]byte, trailer.Size), 0))
				},
				"error after the trailer": func(c *snaptest.SnapshotCall) error {
					return errors.Join(c.SendSnapshot(db), unavailable)
				},
			} {
				t.Run(how, func(t *testing.T) {
					snaptest.NoLeaks(t)
					s := snaptest.Serve(t, script)
					var left bytes.Buffer
					_, err := snapshot.New(snapshot.WithStallTimeout(longStall)).SaveTo(t.Context(), s.ClientConfig(), &left)
					require.Error(t, err)
					require.LessOrEqual(t, left.Len(), size-trailer.Sector)
					requireNotAccepted(t, left.Bytes())
				})
			}
			snaptest.NoLeaks(t)
			s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(db) })
			var whole bytes.Buffer
			_, err := snapshot.New().SaveTo(t.Context(), s.ClientConfig(), &whole)
			require.NoError(t, err)
			require.True(t, bytes.Equal(snaptest.WithTrailer(db), whole.Bytes()))
		})
	}
}

// requireNotAccepted wants from each operation what the documentation of SaveTo
// says of what it leaves.
func requireNotAccepted(t *testing.T, left []byte) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "left.db")
	require.NoError(t, os.WriteFile(path, left, 0o600))
	m := apitest.Quick()

	_, err := m.Status(path)
	require.ErrorIs(t, err, snapshot.ErrCorrupt)
	require.ErrorIs(t, err, snapshot.ErrTruncated)
	_, err = m.Verify(t.Context(), path)
	require.ErrorIs(t, err, snapshot.ErrNoTrailer)
	cfg := apitest.Config(path, filepath.Join(dir, "data"))
	require.ErrorIs(t, m.Restore(cfg), snapshot.ErrNoTrailer)
	cfg.SkipHashCheck = true
	require.ErrorIs(t, m.Restore(cfg), snapshot.ErrCorrupt)
	cfg.SnapshotPath = ""
	require.ErrorIs(t, m.RestoreFrom(t.Context(), bytes.NewReader(left), cfg), snapshot.ErrCorrupt)
	cfg.SkipHashCheck = false
	require.ErrorIs(t, m.RestoreFrom(t.Context(), bytes.NewReader(left), cfg), snapshot.ErrNoTrailer)
}

// The last block is written at once, with what it holds of the database and the
// trailer.
func TestSaveToBlocks(t *testing.T) {
	for size, want := range map[int][]int{
		512:          {512 + 32},
		1 << 20:      {1<<20 + 32},
		1<<20 + 512:  {1 << 20, 512 + 32},
		3 << 20:      {1 << 20, 1 << 20, 1<<20 + 32},
		2<<20 - 512:  {1 << 20, 1<<20 - 512 + 32},
		2<<20 + 4096: {1 << 20, 1 << 20, 4096 + 32},
	} {
		s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
			c.Chunk = 7919
			return c.SendSnapshot(snaptest.Opaque(size))
		})
		var got []int
		_, err := snapshot.New().SaveTo(t.Context(), s.ClientConfig(), io.MultiWriter(io.Discard, apitest.WriterFunc(func(p []byte) (int, error) {
			got = append(got, len(p))
			return len(p), nil
		})))
		require.NoError(t, err)
		require.Equal(t, want, got, "%d bytes", size)
	}
}
