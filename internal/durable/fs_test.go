package durable_test

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
)

// eachDisk calls f with a directory in memory and one on a disk, as far as the
// machine has both.
func eachDisk(t *testing.T, f func(t *testing.T, dir string)) {
	t.Run("default", func(t *testing.T) { f(t, t.TempDir()) })
	t.Run("disk", func(t *testing.T) {
		t.Setenv("TMPDIR", diskDir)
		f(t, t.TempDir())
	})
}

func create(t *testing.T, name, content string) durable.File {
	t.Helper()
	f, err := durable.OS.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() }) // closed already in some tests
	_, err = io.WriteString(f, content)
	require.NoError(t, err)
	return f
}

func TestOpenFileError(t *testing.T) {
	f, err := durable.OS.OpenFile(filepath.Join(t.TempDir(), "missing"), os.O_RDONLY, 0)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.True(t, f == nil, "a nil pointer is not nil")
}

func TestRenameNoReplace(t *testing.T) {
	for name, rename := range map[string]func(oldpath, newpath string) error{
		"OS": durable.OS.RenameNoReplace, "two steps": durable.RenameIfAbsent,
	} {
		t.Run(name, func(t *testing.T) {
			eachDisk(t, func(t *testing.T, root string) {
				at := func(name string) string { return filepath.Join(root, name) }
				require.NoError(t, os.MkdirAll(at("from/sub"), 0o700))
				require.NoError(t, os.Mkdir(at("empty"), 0o700))
				require.NoError(t, os.WriteFile(at("file"), nil, 0o600))
				symlink(t, "nowhere", at("link"))
				before := list(t, root)
				for _, taken := range []string{"empty", "file", "link"} {
					require.ErrorIs(t, rename(at("from"), at(taken)), fs.ErrExist, taken)
				}
				require.ErrorIs(t, rename(at("missing"), at("to")), fs.ErrNotExist)
				require.Error(t, rename(at("from"), at("file/to")))
				require.Equal(t, before, list(t, root))

				require.NoError(t, rename(at("from"), at("to")))
				require.DirExists(t, at("to/sub"))
				require.NoDirExists(t, at("from"))
			})
		})
	}
}

func TestSyncDir(t *testing.T) {
	eachDisk(t, func(t *testing.T, root string) {
		require.NoError(t, durable.OS.SyncDir(root))
		if runtime.GOOS != "windows" {
			require.ErrorIs(t, durable.OS.SyncDir(filepath.Join(root, "missing")), fs.ErrNotExist)
		}
	})
}

func TestSaturate(t *testing.T) {
	require.Equal(t, int64(12), durable.Saturate(3, 4))
	require.Equal(t, int64(math.MaxInt64), durable.Saturate(1<<52, 4096))
	require.Equal(t, int64(math.MaxInt64), durable.Saturate(uint64(math.MaxUint64), 4096))
	require.Equal(t, int64(math.MaxInt64), durable.Saturate(uint64(math.MaxUint64), 1))
}

func TestFreeSpace(t *testing.T) {
	root := t.TempDir()
	here, err := durable.OS.FreeSpace(root)
	require.NoError(t, err)
	require.Positive(t, here)
	below, err := durable.OS.FreeSpace(filepath.Join(root, "not", "yet", "there"))
	require.NoError(t, err)
	require.Positive(t, below)
	require.NoError(t, os.WriteFile(filepath.Join(root, "file"), nil, 0o600))
	_, err = durable.OS.FreeSpace(filepath.Join(root, "file", "x"))
	require.Error(t, err)
}

func TestCopyRange(t *testing.T) {
	eachDisk(t, func(t *testing.T, root string) {
		src := create(t, filepath.Join(root, "src"), "0123456789")
		dst := create(t, filepath.Join(root, "dst"), "----------")
		n, err := durable.OS.CopyRange(dst, 2, src, 3, 4)
		if errors.Is(err, errors.ErrUnsupported) {
			require.NotEqual(t, "linux", runtime.GOOS, "%v", err)
			return
		}
		require.NoError(t, err)
		require.EqualValues(t, 4, n)
		got, err := os.ReadFile(filepath.Join(root, "dst"))
		require.NoError(t, err)
		require.Equal(t, "--3456----", string(got))
		at, err := dst.Seek(0, io.SeekCurrent)
		require.NoError(t, err)
		require.EqualValues(t, 10, at, "the offset moved")

		n, err = durable.OS.CopyRange(dst, 10, src, 8, 100)
		require.NoError(t, err)
		require.EqualValues(t, 2, n, "the end of the source")
		n, err = durable.OS.CopyRange(dst, 12, src, 10, 100)
		require.NoError(t, err)
		require.Zero(t, n)

		require.NoError(t, dst.Close())
		_, err = durable.OS.CopyRange(dst, 0, src, 0, 1)
		require.Error(t, err)
		require.NotErrorIs(t, err, errors.ErrUnsupported)
	})
}

func TestCopyRangeOnlyReadable(t *testing.T) {
	root := t.TempDir()
	src := create(t, filepath.Join(root, "src"), "0123456789")
	create(t, filepath.Join(root, "dst"), "")
	dst, err := durable.OS.OpenFile(filepath.Join(root, "dst"), os.O_RDONLY, 0)
	require.NoError(t, err)
	_, err = durable.OS.CopyRange(dst, 0, src, 0, 4)
	require.Error(t, err)
	require.NoError(t, dst.Close())
}

// Between two file systems CopyRange either copies all bytes or returns an error.
func TestCopyRangeAcross(t *testing.T) {
	src := create(t, filepath.Join(t.TempDir(), "src"), "0123456789")
	t.Setenv("TMPDIR", diskDir)
	otherDisk, err := os.MkdirTemp("", "")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(otherDisk)) })
	dst := create(t, filepath.Join(otherDisk, "dst"), "")
	n, err := durable.OS.CopyRange(dst, 0, src, 0, 10)
	if err != nil {
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.Zero(t, n)
	}
	got, err := os.ReadFile(filepath.Join(otherDisk, "dst"))
	require.NoError(t, err)
	require.Equal(t, "0123456789"[:n], string(got))
}

// A pipe cannot be copied by range.
func TestCopyRangeUnsupported(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	dst := create(t, filepath.Join(t.TempDir(), "dst"), "")
	_, err = durable.OS.CopyRange(dst, 0, r, 0, 4)
	require.Error(t, err)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.NoError(t, r.Close())
	require.NoError(t, w.Close())
	_, err = durable.OS.CopyRange(notOS{dst}, 0, dst, 0, 4)
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

// notOS hides that a file is one of the operating system.
type notOS struct{ durable.File }

func TestAllocate(t *testing.T) {
	eachDisk(t, func(t *testing.T, root string) {
		for _, size := range []int64{0, 1, 1 << 20} {
			f := create(t, filepath.Join(root, "f"), "")
			require.NoError(t, durable.OS.Allocate(f, size))
			got, err := io.ReadAll(f)
			require.NoError(t, err)
			require.Equal(t, strings.Repeat("\x00", int(size)), string(got))
			require.NoError(t, os.Remove(f.Name()))
		}
		f := create(t, filepath.Join(root, "other"), "")
		require.NoError(t, durable.OS.Allocate(notOS{f}, 10))
		info, err := f.Stat()
		require.NoError(t, err)
		require.EqualValues(t, 10, info.Size())
		require.NoError(t, f.Close())
		require.Error(t, durable.OS.Allocate(f, 10))
	})
}

func TestStartWriteback(t *testing.T) {
	eachDisk(t, func(t *testing.T, root string) {
		f := create(t, filepath.Join(root, "f"), "0123456789")
		require.NoError(t, durable.OS.StartWriteback(f, 0, 10))
		require.NoError(t, durable.OS.StartWriteback(notOS{f}, 0, 10))
	})
}

func TestTryLock(t *testing.T) {
	eachDisk(t, func(t *testing.T, root string) {
		name := filepath.Join(root, "f")
		first := create(t, name, "0123456789")
		second, err := durable.OS.OpenFile(name, os.O_RDWR, 0)
		require.NoError(t, err)
		require.NoError(t, durable.OS.TryLock(first))
		require.ErrorIs(t, durable.OS.TryLock(second), durable.ErrInUse)
		_, err = io.ReadAll(second)
		require.NoError(t, err, "others cannot read")
		require.NoError(t, first.Close())
		require.NoError(t, durable.OS.TryLock(second))
		require.ErrorIs(t, durable.OS.TryLock(notOS{second}), errors.ErrUnsupported)
		require.NoError(t, second.Close())
		require.Error(t, durable.OS.TryLock(second))
	})
}
