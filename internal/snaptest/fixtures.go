package snaptest

import (
	"crypto/sha256"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
)

// History returns a database with updates, deletions and keys created again.
func History(tb testing.TB) *DB {
	tb.Helper()
	rng := rand.New(rand.NewPCG(5, 6))
	db := NewDB().StorageVersion("3.7.0").ConsistentIndex(77).Term(3)
	for range 3000 {
		key := "key-" + string(rune('a'+rng.IntN(26))) + string(rune('a'+rng.IntN(26)))
		switch rng.IntN(10) {
		case 0, 1:
			db.Delete(key)
		case 2:
			db.Txn(func() { db.Put(key, "in a transaction").Put(key+"x", "too") })
		default:
			db.Put(key, strings.Repeat("v", rng.IntN(200)))
		}
	}
	return db
}

// SmallFile writes a small valid snapshot and returns its path.
func SmallFile(tb testing.TB) string {
	tb.Helper()
	return History(tb).Write(tb, filepath.Join(tb.TempDir(), "snap.db"), true)
}

// WithTrailer returns a snapshot of db: db and its checksum.
func WithTrailer(db []byte) []byte {
	sum := sha256.Sum256(db)
	return append(slices.Clip(db), sum[:]...)
}

// MemoryDir returns a new directory, in memory if there is enough: these tests
// create tens of thousands of files.
func MemoryDir(tb testing.TB) string {
	tb.Helper()
	const memory, plenty = "/dev/shm", 1 << 30
	parent := ""
	if free, err := durable.OS.FreeSpace(memory); err == nil && free > plenty {
		if info, err := os.Stat(memory); err == nil && info.IsDir() {
			parent = memory
		}
	}
	dir, err := os.MkdirTemp(parent, "snapshot-test-*")
	if err != nil && parent != "" {
		dir, err = os.MkdirTemp("", "snapshot-test-*")
	}
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, os.RemoveAll(dir)) })
	dir, err = filepath.EvalSymlinks(dir)
	require.NoError(tb, err)
	return dir
}

// RevisionKey returns the key of a record; mark is "t" for a tombstone.
func RevisionKey(main, sub int, mark string) string {
	return string(revKey(int64(main), int64(sub), false)) + mark
}

// AsSnapshot turns a db file into a snapshot.
func AsSnapshot(tb testing.TB, path string) string {
	tb.Helper()
	b, err := os.ReadFile(path)
	require.NoError(tb, err)
	dbPath := filepath.Join(tb.TempDir(), "snap.db")
	require.NoError(tb, os.WriteFile(dbPath, append(b, make([]byte, 32)...), 0o600))
	FixTrailer(tb, dbPath)
	return dbPath
}
