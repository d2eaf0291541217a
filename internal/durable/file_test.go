package durable_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
)

// save publishes content at path, in two writes.
func save(fsys durable.FS, path, content string) (err error) {
	f, err := durable.CreateFile(fsys, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Cleanup()) }()
	for _, part := range []string{content[:len(content)/2], content[len(content)/2:]} {
		n, err := io.WriteString(f.File(), part)
		if n < len(part) && err == nil {
			err = io.ErrShortWrite
		}
		if err != nil {
			return err
		}
	}
	return f.Commit()
}

func TestFilePublished(t *testing.T) {
	for name, base := range map[string]string{
		"plain":   "db",
		"spaces":  "my backup.db",
		"unicode": "бэкап-備份.db",
		"long":    strings.Repeat("n", 255),
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			path := filepath.Join(root, base)
			require.NoError(t, save(durable.OS, path, "first"))
			require.Equal(t, listing{base: "first"}, list(t, root))
			info, err := os.Stat(path)
			require.NoError(t, err)
			if runtime.GOOS != "windows" {
				require.Equal(t, fs.FileMode(0o600), info.Mode())
			}
			require.NoError(t, save(durable.OS, path, "second"))
			require.Equal(t, listing{base: "second"}, list(t, root))
		})
	}
}

func TestFileInvisibleUntilCommit(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "db")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o644))
	f, err := durable.CreateFile(durable.OS, path)
	require.NoError(t, err)
	_, err = f.File().Write([]byte("new"))
	require.NoError(t, err)
	require.Equal(t, "old", list(t, root)["db"])

	require.NoError(t, f.Cleanup())
	require.Equal(t, listing{"db": "old"}, list(t, root))
	require.NoError(t, f.Cleanup())
	require.ErrorIs(t, f.Commit(), fs.ErrClosed)
	require.Equal(t, listing{"db": "old"}, list(t, root))
}

func TestFileCleanupAfterCommit(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "db")
	f, err := durable.CreateFile(durable.OS, path)
	require.NoError(t, err)
	require.NoError(t, f.Commit())
	require.NoError(t, f.Cleanup())
	require.Equal(t, listing{"db": ""}, list(t, root))
	require.ErrorIs(t, f.Commit(), fs.ErrClosed)
}

func TestFileSymlinks(t *testing.T) {
	root := t.TempDir()
	volume := filepath.Join(root, "volume")
	require.NoError(t, os.Mkdir(volume, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(volume, "there"), []byte("old"), 0o600))
	link := func(name, target string) {
		require.NoError(t, os.Symlink(target, filepath.Join(root, name)))
	}
	link("absolute", filepath.Join(volume, "there"))
	link("relative", "volume/there")
	link("chain", "relative")
	link("dangling", "volume/missing")
	link("dir", "volume")
	link("nowhere", "void/missing")
	link("loop", "loop")
	link("to-dir", "dir")
	require.NoError(t, os.Mkdir(filepath.Join(volume, "deep"), 0o700))
	link("deep", "volume/deep")
	link("dots", "deep/../there")

	for name, target := range map[string]string{
		"absolute": "there", "relative": "there", "chain": "there",
		"dangling": "missing", "dir/new": "new",
		"dots": "there", "deep/../deep/../other": "other",
	} {
		t.Run(name, func(t *testing.T) {
			before := list(t, root)
			require.NoError(t, save(durable.OS, root+"/"+name, name))
			before["volume/"+target] = name
			require.Equal(t, before, list(t, root))
		})
	}
	for _, name := range []string{"nowhere", "loop", "to-dir"} {
		t.Run(name, func(t *testing.T) {
			before := list(t, root)
			require.Error(t, save(durable.OS, filepath.Join(root, name), name))
			require.Equal(t, before, list(t, root))
		})
	}
}

func TestFileRefused(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(root, "dir"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(root, "file"), nil, 0o600))
	before := list(t, root)

	_, err := durable.CreateFile(durable.OS, filepath.Join(root, "dir"))
	require.ErrorContains(t, err, "is a directory")
	for _, path := range []string{"", filepath.Join(root, "file") + "/", filepath.Join(root, "dir") + "/"} {
		_, err = durable.CreateFile(durable.OS, path)
		require.ErrorContains(t, err, "does not name a file")
	}
	_, err = durable.CreateFile(durable.OS, filepath.Join(root, "missing", "db"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = durable.CreateFile(durable.OS, filepath.Join(root, "file", "db"))
	require.Error(t, err)
	_, err = durable.CreateFile(durable.OS, os.DevNull)
	require.ErrorContains(t, err, "not a regular file")
	require.Equal(t, before, list(t, root))
}

func TestFileStaleTemporaries(t *testing.T) {
	root := t.TempDir()
	const random = "0123456789abcdef"
	file := func(name string) { require.NoError(t, os.WriteFile(filepath.Join(root, name), nil, 0o600)) }
	file(".db." + random + ".part") // stale
	keep := listing{"db": "new"}
	for _, name := range []string{
		".db.0123456789ABCDEF.part", // never made
		".db.0123456789abcdeg.part",
		".db.0123456789abcde.part",
		".db." + random + ".partial",
		".db2." + random + ".part", // of another file
		".x.db." + random + ".part",
		"db." + random + ".part",
	} {
		file(name)
		keep[name] = ""
	}
	dir := ".db.fedcba9876543210.part"
	require.NoError(t, os.Mkdir(filepath.Join(root, dir), 0o700))
	keep[dir+"/"] = ""
	link := ".db.aaaaaaaaaaaaaaaa.part"
	require.NoError(t, os.Symlink("db", filepath.Join(root, link)))
	keep[link] = "db"

	require.NoError(t, save(durable.OS, filepath.Join(root, "db"), "new"))
	require.Equal(t, keep, list(t, root))
}

func TestFileConcurrent(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "db")
	whole := map[string]bool{}
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		content := strings.Repeat(fmt.Sprintf("%02d", i), 5000)
		whole[content] = true
		wg.Go(func() {
			for range 8 {
				errs[i] = errors.Join(errs[i], save(durable.OS, path, content))
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	got := list(t, root)
	require.Len(t, got, 1)
	require.True(t, whole[got["db"]], "contents were mixed")
}
