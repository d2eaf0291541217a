package systemtest_test

// A file that is not a snapshot is refused, and the error says what it is. In
// every run.

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// everyReader calls everything that reads a snapshot, with and without the check
// of the digest. Restore must not get as far as making anything.
func everyReader(t *testing.T, content []byte, skipping []bool, check func(t *testing.T, op string, err error)) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	m := snapshot.New()
	st, err := m.Verify(t.Context(), path)
	require.Zero(t, st)
	check(t, "verify", err)
	for _, skip := range skipping {
		dir := t.TempDir()
		cfg := apitest.Config(path, filepath.Join(dir, "data"))
		cfg.SkipHashCheck = skip
		disk := durabletest.Wrap(durable.OS, readOnly{})
		check(t, "restore", apitest.OnFS(disk, nil).Restore(cfg))
		require.Empty(t, snaptest.TreeList(t, dir))

		cfg.SnapshotPath = ""
		check(t, "restore", m.RestoreFrom(t.Context(), bytes.NewReader(content), cfg))
		require.Empty(t, snaptest.TreeList(t, dir))
	}
}

// readOnly is a hook that lets nothing be made.
type readOnly struct{}

func (readOnly) Before(op durabletest.Op) error {
	switch op.Kind {
	case "mkdir", "create", "copy", "allocate", "write":
		return syscall.EROFS
	}
	return nil
}

func (readOnly) After(durabletest.Op, error) {}

// What is handed over in place of a snapshot is named, whatever its size would
// say of a digest.
func TestNotASnapshot(t *testing.T) {
	db := snaptest.SmallFile(t)
	raw, err := os.ReadFile(db)
	require.NoError(t, err)
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	_, err = zw.Write(raw)
	require.NoError(t, err)
	require.NoError(t, zw.Close())

	for name, tt := range map[string]struct{ content, want string }{
		"gzip":       {zipped.String(), "this is a gzip file: decompress it first, or give RestoreFrom a reader that does"},
		"zstd":       {"(\xb5/\xfd" + strings.Repeat("\x04X\x88", 3000), "this is a zstd file: decompress it first"},
		"age":        {"age-encryption.org/v1\n-> X25519 " + strings.Repeat("\x04X\x88", 3000), "this is a file encrypted with age: decrypt it first"},
		"short HTML": {"<html>\n<h1>404 Not Found</h1>", `it starts with "<html> <h1>404 Not Found</h1>"`},
		"long HTML":  {"<html>" + strings.Repeat("\n<p>", 3000), `it starts with "<html> <p> <p>`},
		"JSON":       {`{"error":"denied"}`, `it starts with "{\"error\":\"denied\"}"`},
		"zeros":      {strings.Repeat("\x00", 20480), "it starts with 512 bytes of zeros"},
		"binary":     {"\x7fELF" + strings.Repeat("\x01\x02\x03\x04", 3000), "it starts with the bytes 7f 45 4c 46 01 02"},
	} {
		// A whole number of sectors, and one that seems to end in a digest.
		sector := tt.content + strings.Repeat("\n", -len(tt.content)&511)
		for size, content := range map[string]string{"": tt.content, ", whole sectors": sector, ", a trailer": sector + strings.Repeat(" ", 32)} {
			t.Run(name+size, func(t *testing.T) {
				check := func(t *testing.T, op string, err error) {
					require.ErrorIs(t, err, snapshot.ErrCorrupt)
					require.ErrorContains(t, err, ": not a snapshot: "+strings.TrimSuffix(tt.want, `"`))
					for _, other := range []error{snapshot.ErrNoTrailer, snapshot.ErrChecksum, snapshot.ErrTruncated, snapshot.ErrByteOrder} {
						require.NotErrorIs(t, err, other, op)
					}
				}
				everyReader(t, []byte(content), []bool{false, true}, check)
				path := filepath.Join(t.TempDir(), "file")
				require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
				_, err := snapshot.New().Status(path)
				check(t, "status", err)
			})
		}
	}
}

// A file without a checksum is either cut or a copied db file; where it is known
// which, that is said.
func TestNoChecksumSaysWhy(t *testing.T) {
	whole, err := os.ReadFile(snaptest.SmallFile(t))
	require.NoError(t, err)
	for name, tt := range map[string]struct {
		content []byte
		want    string
	}{
		"db file": {whole[:len(whole)-32], "either it was cut off, or it is a db file copied from a data directory, which Restore accepts with SkipHashCheck"},
		"cut":     {whole[:10_000], "does not end in a checksum (10000 bytes): ended early: database ends at byte 10000, want at least"},
		"empty":   {nil, "does not end in a checksum (0 bytes): ended early: database ends at byte 0"},
	} {
		t.Run(name, func(t *testing.T) {
			everyReader(t, tt.content, []bool{false}, func(t *testing.T, op string, err error) {
				require.ErrorIs(t, err, snapshot.ErrNoTrailer, op)
				require.NotErrorIs(t, err, snapshot.ErrCorrupt)
				require.ErrorContains(t, err, tt.want)
			})
		})
	}
}
