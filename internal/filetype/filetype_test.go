package filetype_test

import (
	"bytes"
	"compress/gzip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/filetype"
)

func TestDescribe(t *testing.T) {
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	_, err := zw.Write(make([]byte, 10_000))
	require.NoError(t, err)
	require.NoError(t, zw.Close())

	const reader = "first, or give RestoreFrom a reader that does"
	for head, want := range map[string]string{
		zipped.String():                        "this is a gzip file: decompress it " + reader,
		"\x1f\x8b":                             "this is a gzip file: decompress it " + reader,
		"(\xb5/\xfd\x04X":                      "this is a zstd file: decompress it " + reader,
		"\xfd7zXZ\x00\x00\x04":                 "this is an xz file: decompress it " + reader,
		"BZh91AY&SY":                           "this is a bzip2 file: decompress it " + reader,
		"\x04\"M\x18d@\xa7":                    "this is an LZ4 file: decompress it " + reader,
		"PK\x03\x04\x14\x00":                   "this is a zip archive: extract it " + reader,
		"age-encryption.org/v1\n-> X25519 ":    "this is a file encrypted with age: decrypt it " + reader,
		"-----BEGIN AGE ENCRYPTED FILE-----\n": "this is a file encrypted with age: decrypt it " + reader,
		"-----BEGIN PGP MESSAGE-----\n\nhQEM":  "this is a file encrypted with OpenPGP: decrypt it " + reader,
		"snapshot.db" + strings.Repeat("\x00", 246) + "ustar\x0000": "this is a tar archive: extract it " + reader,

		"<!DOCTYPE html>\n<html>\n\t<body>": `it starts with "<!DOCTYPE html> <html> <body>"`,
		`{"error":"not found"}`:             `it starts with "{\"error\":\"not found\"}"`,
		strings.Repeat("0123456789", 50):    `it starts with "` + strings.Repeat("0123456789", 6) + `…"`,
		strings.Repeat("ä", 30) + "\xc3":    `it starts with "` + strings.Repeat("ä", 30) + `…"`,
		"\ufeff{}":                          `it starts with "{}"`,
		"\x1b[31mred":                       "it starts with the bytes 1b 5b 33 31 6d 72 65 64",
		"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00": "it starts with the bytes 7f 45 4c 46 02 01 01 00 00 00 00 00 00 00 00 00",
		"\xff":                      "it starts with the bytes ff",
		strings.Repeat("\x00", 512): "it starts with 512 bytes of zeros",
		"text\x00\x01":              "it starts with the bytes 74 65 78 74 00 01",
		"a\u202eb":                  "it starts with the bytes 61 e2 80 ae 62",
	} {
		require.Equal(t, want, filetype.Describe([]byte(head)))
	}
}

// The content of untrusted files ends up in logs and on terminals.
func FuzzDescribe(f *testing.F) {
	f.Add([]byte("\x1b]0;title\x07"))
	f.Add([]byte("<html>\r\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, head []byte) {
		got := filetype.Describe(head)
		require.Less(t, len(got), 500)
		for _, r := range got {
			require.False(t, r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x202e, "%q", got)
		}
	})
}
