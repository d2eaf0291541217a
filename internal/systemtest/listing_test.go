package systemtest_test

// What a directory holds, compared before and after a call. Other files use it.

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// listing is what a directory holds: files with size and digest, directories
// with a slash at the end.
type listing map[string]string

func (l listing) within(other listing) bool {
	for path, content := range l {
		if got, ok := other[path]; !ok || got != content {
			return false
		}
	}
	return true
}

// minus is what is in l and not, or not the same, in other.
func (l listing) minus(other listing) listing {
	diff := maps.Clone(l)
	maps.DeleteFunc(diff, func(path, content string) bool { got, ok := other[path]; return ok && got == content })
	return diff
}

func requireListing(tb testing.TB, want listing, root string, msg ...any) {
	tb.Helper()
	got := list(tb, root)
	if !maps.Equal(want, got) {
		require.FailNow(tb, fmt.Sprintf("missing or different: %v\nleft over: %v", want.minus(got), got.minus(want)), msg...)
	}
}

func list(tb testing.TB, root string) listing {
	tb.Helper()
	l := listing{}
	require.NoError(tb, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			l[rel+"/"] = ""
			return nil
		}
		l[rel], err = digest(path)
		return err
	}))
	return l
}

// digest is the size of a file and the SHA-256 of its blocks that are not zero.
func digest(path string) (_ string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	buf, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	for off := int64(0); off < info.Size(); {
		if off, err = nextData(f, off, info.Size()); err != nil || off >= info.Size() {
			break
		}
		off -= off % int64(len(buf))
		n, rerr := f.ReadAt(buf, off)
		if rerr != nil && !errors.Is(rerr, io.EOF) {
			return "", rerr
		}
		if !bytes.Equal(buf[:n], zeros[:n]) {
			_, _ = fmt.Fprintf(h, "%d:", off)
			_, _ = h.Write(buf[:n])
		}
		off += int64(n)
	}
	return fmt.Sprintf("%d bytes, %x", info.Size(), h.Sum(nil)[:8]), err
}
