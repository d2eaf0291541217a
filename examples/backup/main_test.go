package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
)

// backup runs the program and returns what it printed.
func backup(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	err := run(ctx, args, &out)
	return out.String(), err
}

// savedThrice returns a directory with the last two of three backups, of which
// the n-th holds n keys.
func savedThrice(t *testing.T) (dir string, names []string) {
	t.Helper()
	etcd := snaptest.Start(t)
	dir = filepath.Join(t.TempDir(), "backups")
	for i := range 3 {
		_, err := etcd.Client().Put(context.Background(), fmt.Sprintf("key%d", i), "value")
		require.NoError(t, err)
		out, err := backup("save", "-endpoint", etcd.Endpoint(), "-dir", dir, "-keep", "2")
		require.NoError(t, err)
		require.Contains(t, out, "\rdownload      0 of 0 MB ")
		require.Regexp(t, regexp.MustCompile(fmt.Sprintf(
			`saved \d{8}T\d{6}\.\d{6}Z-rev%d\.db\.gz: \d+ bytes, SHA-256 [0-9a-f]{64}\n$`, i+2)), out)
	}
	names = backups(t, dir)
	require.Len(t, names, 2, "the newest two")
	require.Contains(t, names[0], "-rev3.")
	require.Contains(t, names[1], "-rev4.")
	info, err := os.Stat(filepath.Join(dir, names[1]))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "passwords are in it")
	return dir, names
}

// backups lists the entries of dir, without the file that saves lock.
func backups(t *testing.T, dir string) []string {
	t.Helper()
	names := snaptest.TreeList(t, dir)
	require.Contains(t, names, ".lock")
	return slices.DeleteFunc(names, func(name string) bool { return name == ".lock" })
}

func restoreArgs(dir, dataDir string) []string {
	return []string{"restore", "-dir", dir, "-name", "m1", "-data-dir", dataDir,
		"-initial-cluster", "m1=http://127.0.0.1:2380,m2=http://127.0.0.1:2381"}
}

func TestSaveAndRestore(t *testing.T) {
	snaptest.NoLeaks(t)
	dir, names := savedThrice(t)
	dataDir := filepath.Join(t.TempDir(), "etcd")
	out, err := backup("restore", "-dir", dir, "-name", "m1", "-data-dir", dataDir, "-initial-cluster", "m1=http://127.0.0.1:2380")
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(out, "restored "+names[1]+"\n"), out)

	etcd := snaptest.Start(t, snaptest.From(dataDir, ""), snaptest.With(func(c *snaptest.Config) { c.Name = "m1" }))
	for i := range 3 {
		got, err := etcd.Client().Get(context.Background(), fmt.Sprintf("key%d", i))
		require.NoError(t, err)
		require.Len(t, got.Kvs, 1)
	}
}

// flipBit flips the first bit after the middle that matters: among zeros one
// distance to copy from is as good as another.
func flipBit(packed []byte) []byte {
	want, _ := unpack(packed)
	for i := len(packed) / 2; ; i++ {
		packed[i] ^= 4
		if got, err := unpack(packed); err != nil || !bytes.Equal(want, got) {
			return packed
		}
		packed[i] ^= 4
	}
}

func unpack(packed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func TestRestoreSkipsDamaged(t *testing.T) {
	dir, names := savedThrice(t)
	newest := filepath.Join(dir, names[1])
	sound, err := os.ReadFile(newest)
	require.NoError(t, err)
	for name, damage := range map[string]func([]byte) []byte{
		"empty":             func(b []byte) []byte { return nil },
		"cut in the header": func(b []byte) []byte { return b[:5] },
		"cut":               func(b []byte) []byte { return b[:len(b)/2] },
		"no gzip":           func(b []byte) []byte { return bytes.Repeat([]byte("x"), 1000) },
		"overwritten":       func(b []byte) []byte { copy(b[len(b)/2:], bytes.Repeat([]byte{0xff}, 300)); return b },
		"flipped bit":       flipBit,
		"wrong gzip CRC":    func(b []byte) []byte { b[len(b)-8] ^= 1; return b },
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(newest, damage(bytes.Clone(sound)), 0o600))
			target := t.TempDir()
			out, err := backup(restoreArgs(dir, filepath.Join(target, "etcd"))...)
			require.NoError(t, err)
			require.Contains(t, out, "skipped "+names[1]+": ")
			require.True(t, strings.HasSuffix(out, "restored "+names[0]+"\n"), out)
			require.FileExists(t, filepath.Join(target, "etcd", "member", "snap", "db"))
		})
	}

	// gzip cannot detect this: the snapshot was bad when it was packed.
	for want, damage := range map[string]func(path string){
		"ended early": func(path string) { snaptest.Truncate(t, path, 4096) },
		"no SHA-256": func(path string) {
			info, err := os.Stat(path)
			require.NoError(t, err)
			snaptest.Truncate(t, path, info.Size()-32)
		},
		"SHA-256 mismatch": func(path string) { snaptest.Flip(t, path, 5000, 0) },
		"corrupt snapshot": func(path string) {
			snaptest.SetMetas(t, path, func(m *snaptest.Meta) { m.Version++ })
			snaptest.FixTrailer(t, path)
		},
	} {
		t.Run(want, func(t *testing.T) {
			repack(t, sound, newest, damage)
			out, err := backup(restoreArgs(dir, filepath.Join(t.TempDir(), "etcd"))...)
			require.NoError(t, err)
			require.Regexp(t, "skipped "+names[1]+": .*"+want, out)
			require.True(t, strings.HasSuffix(out, "restored "+names[0]+"\n"), out)
		})
	}

	require.NoError(t, os.WriteFile(filepath.Join(dir, names[0]), nil, 0o600))
	require.NoError(t, os.WriteFile(newest, nil, 0o600))
	target := t.TempDir()
	_, err = backup(restoreArgs(dir, filepath.Join(target, "etcd"))...)
	require.EqualError(t, err, "no sound backup in "+dir)
	require.Empty(t, snaptest.TreeList(t, target))
}

// repack unpacks a backup, lets damage change it and packs it again at path.
func repack(t *testing.T, backup []byte, path string, damage func(path string)) {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(backup))
	require.NoError(t, err)
	data, err := io.ReadAll(zip)
	require.NoError(t, err)
	plain := filepath.Join(t.TempDir(), "db")
	require.NoError(t, os.WriteFile(plain, data, 0o600))
	damage(plain)
	data, err = os.ReadFile(plain)
	require.NoError(t, err)
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err = w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, os.WriteFile(path, packed.Bytes(), 0o600))
}

// TestRestoreStops: if every backup would fail alike, restore reports none of them
// as damaged.
func TestRestoreStops(t *testing.T) {
	dir, _ := savedThrice(t)
	target := t.TempDir()
	out, err := backup(restoreArgs(dir, target)...)
	require.ErrorIs(t, err, snapshot.ErrExists)
	require.NotContains(t, out, "skipped")
	_, err = backup("restore", "-dir", dir, "-name", "m9", "-data-dir", filepath.Join(target, "etcd"))
	require.ErrorIs(t, err, snapshot.ErrConfig)
	require.Empty(t, snaptest.TreeList(t, target))
}

// interrupter stands for ctrl-C in one phase of the work.
type interrupter struct {
	phase  string
	cancel context.CancelFunc
}

func (i interrupter) Write(line []byte) (int, error) {
	if bytes.HasPrefix(line, []byte("\r"+i.phase)) {
		i.cancel()
	}
	return len(line), nil
}

func TestInterrupted(t *testing.T) {
	dir, names := savedThrice(t)
	etcd := snaptest.Start(t)
	target := t.TempDir()
	for phase, args := range map[string][]string{
		"download": {"save", "-endpoint", etcd.Endpoint(), "-dir", dir, "-keep", "1"},
		"read":     {"save", "-endpoint", etcd.Endpoint(), "-dir", dir, "-keep", "1"},
		"copy":     restoreArgs(dir, filepath.Join(target, "etcd")),
		"check":    restoreArgs(dir, filepath.Join(target, "etcd")),
	} {
		t.Run(phase, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			require.ErrorIs(t, run(ctx, args, interrupter{phase, cancel}), context.Canceled)
			require.Equal(t, names, backups(t, dir), "the old ones, and no partial file")
			require.Empty(t, snaptest.TreeList(t, target))
		})
	}
}

func TestSaveFails(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	args := []string{"save", "-endpoint", snaptest.FreePeerURLs(t, 1)[0], "-dir", dir}
	require.ErrorIs(t, run(ctx, args, &bytes.Buffer{}), context.DeadlineExceeded)
	require.Empty(t, backups(t, dir), "no partial file")

	// An old backup that cannot be removed is an error. The new one stays, and so do
	// other files.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "0-other.db.gz"), nil, 0o600))
	stuck := filepath.Join(dir, "0-rev1.db.gz")
	require.NoError(t, os.MkdirAll(filepath.Join(stuck, "full"), 0o700))
	out, err := backup("save", "-endpoint", snaptest.Start(t).Endpoint(), "-dir", dir, "-keep", "1")
	require.ErrorContains(t, err, "remove "+stuck)
	require.Contains(t, out, "saved ")
	require.Len(t, backups(t, dir), 4)

	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = backup("save", "-dir", file)
	require.ErrorContains(t, err, file)
}

func TestArguments(t *testing.T) {
	for want, args := range map[string][]string{
		"want a command":                  nil,
		`command: got "purge"`:            {"purge"},
		"keep: got 0, want 1 or more":     {"save", "-keep", "0"},
		"flag provided but not defined":   {"restore", "-kept", "1"},
		`unexpected argument "now"`:       {"save", "now"},
		`unexpected argument "something"`: {"restore", "something"},
		"no sound backup in /nonexistent": {"restore", "-dir", "/nonexistent"},
		"flag: help requested":            {"save", "-h"},
	} {
		_, err := backup(args...)
		require.ErrorContains(t, err, want)
	}
}
