//go:build unix

package boltfile_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"etcd.example/snapshot/internal/boltfile"
)

func TestOpenFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "db")
	require.NoError(t, os.WriteFile(path, make([]byte, 1234), 0o400))

	f, size, err := boltfile.OpenFile(path)
	require.NoError(t, err)
	require.Equal(t, int64(1234), size)
	require.NoError(t, f.Close())

	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink("db", link))
	f, size, err = boltfile.OpenFile(link)
	require.NoError(t, err)
	require.Equal(t, int64(1234), size)
	require.NoError(t, f.Close())

	_, _, err = boltfile.OpenFile(filepath.Join(dir, "missing"))
	require.ErrorIs(t, err, fs.ErrNotExist)

	_, _, err = boltfile.OpenFile(dir)
	require.ErrorIs(t, err, boltfile.ErrNotRegular)

	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	_, _, err = boltfile.OpenFile(fifo) // must not wait for a writer
	require.ErrorIs(t, err, boltfile.ErrNotRegular)

	_, _, err = boltfile.OpenFile("/dev/null")
	require.ErrorIs(t, err, boltfile.ErrNotRegular)
}

// A database that is open for writing is refused at once, one that is only
// read, or was closed, is not.
func TestOpenFileInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := bolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	_, _, err = boltfile.OpenFile(path)
	require.ErrorIs(t, err, boltfile.ErrLocked)
	require.NoError(t, db.Close())

	db, err = bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	require.NoError(t, err)
	f, _, err := boltfile.OpenFile(path)
	require.NoError(t, err)
	require.NoError(t, db.Close())

	_, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: 1})
	require.Error(t, err, "no one may write while the file is read")
	require.NoError(t, f.Close())
}

// ReadAhead ends when it is told to, with the file in the cache or not.
func TestReadAhead(t *testing.T) {
	f, err := os.Open(writeFile(t, make([]byte, 10<<20)))
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	boltfile.ReadAhead(context.Background(), f, 10<<20)()
	require.NoError(t, f.Sync())
	dropCache(t, f)
	boltfile.ReadAhead(context.Background(), f, 10<<20)()
	boltfile.ReadAhead(context.Background(), f, 0)()
}
