// Package filetype tells from its first bytes what a file is that is not an etcd
// database.
package filetype

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// signatures lists the first bytes of the file formats that backups are packed in.
var signatures = []struct {
	start, kind, undo string
}{
	{"\x1f\x8b", "a gzip file", "decompress"},
	{"\x28\xb5\x2f\xfd", "a zstd file", "decompress"},
	{"\xfd7zXZ\x00", "an xz file", "decompress"},
	{"BZh", "a bzip2 file", "decompress"},
	{"\x04\x22\x4d\x18", "an LZ4 file", "decompress"},
	{"PK\x03\x04", "a zip archive", "extract"},
	{"age-encryption.org/v1", "a file encrypted with age", "decrypt"},
	{"-----BEGIN AGE ENCRYPTED FILE-----", "a file encrypted with age", "decrypt"},
	{"-----BEGIN PGP MESSAGE-----", "a file encrypted with OpenPGP", "decrypt"},
}

// Describe states what a file is that starts with head, and what to do: "this is a
// gzip file: decompress it first, …".
func Describe(head []byte) string {
	for _, s := range signatures {
		if bytes.HasPrefix(head, []byte(s.start)) {
			return fmt.Sprintf("this is %s: %s it first, or give RestoreFrom a reader that does", s.kind, s.undo)
		}
	}
	const tar = 257 // offset of the magic in the header of a tar archive
	if len(head) > tar && bytes.HasPrefix(head[tar:], []byte("ustar")) {
		return "this is a tar archive: extract it first, or give RestoreFrom a reader that does"
	}
	if len(bytes.Trim(head, "\x00")) == 0 {
		return fmt.Sprintf("it starts with %d bytes of zeros", len(head))
	}
	if text := printable(head); text != "" {
		return "it starts with " + text
	}
	return fmt.Sprintf("it starts with the bytes % x", head[:min(len(head), maxBytes)])
}

const (
	maxText  = 60 // characters
	maxBytes = 16
)

// printable quotes the beginning of a text. It returns "" if head is not text.
func printable(head []byte) string {
	head = bytes.TrimPrefix(head, []byte("\ufeff"))
	var text strings.Builder
	for n := 0; n < maxText && len(head) > 0; n++ {
		r, size := utf8.DecodeRune(head)
		if r == utf8.RuneError && !utf8.FullRune(head) {
			break // head ends within it
		}
		if r == utf8.RuneError || !unicode.IsPrint(r) && !unicode.IsSpace(r) {
			return ""
		}
		text.WriteRune(r)
		head = head[size:]
	}
	if len(head) > 0 {
		text.WriteString("…")
	}
	return fmt.Sprintf("%q", strings.Join(strings.Fields(text.String()), " "))
}
