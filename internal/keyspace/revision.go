// Package keyspace reads what etcd stores in its bucket "key": revision keys and
// KeyValue records. It returns errors for malformed input and trusts no length that
// it has not checked.
package keyspace

import (
	"encoding/binary"
	"fmt"

	"etcd.example/snapshot/internal/fault"
)

// ErrMalformed matches every error about a key or a record. It is a
// [fault.ErrCorrupt].
var ErrMalformed error = malformedError{}

type malformedError struct{}

func (malformedError) Error() string { return "malformed" }
func (malformedError) Unwrap() error { return fault.ErrCorrupt }

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w "+format, append([]any{ErrMalformed}, args...)...)
}

// Revision is a key of bucket "key": change number Sub, from 0, of the transaction
// that created revision Main.
type Revision struct {
	Main, Sub int64
	Tombstone bool // the change deleted its key
}

// The forms of a revision key, as in etcd's storage/mvcc: 8 bytes main, '_',
// 8 bytes sub, big endian, followed by a 't' for a tombstone.
const (
	revisionSize  = 17
	tombstoneSize = 18
)

// ParseRevision reads a revision key.
func ParseRevision(key []byte) (Revision, error) {
	if len(key) != revisionSize && len(key) != tombstoneSize {
		return Revision{}, malformed("revision key %x: %d bytes, want %d or %d", key[:min(len(key), 32)], len(key), revisionSize, tombstoneSize)
	}
	r := Revision{
		Main:      int64(binary.BigEndian.Uint64(key)),
		Sub:       int64(binary.BigEndian.Uint64(key[9:])),
		Tombstone: len(key) == tombstoneSize,
	}
	switch {
	case key[8] != '_':
		return Revision{}, malformed("revision key %x: separator %q", key, key[8])
	case r.Main < 0 || r.Sub < 0:
		return Revision{}, malformed("revision key %x: negative", key)
	case r.Tombstone && key[revisionSize] != 't':
		return Revision{}, malformed("revision key %x: mark %q", key, key[revisionSize])
	}
	return r, nil
}

// Key returns the key of the record in bucket "key".
func (r Revision) Key() []byte {
	key := make([]byte, 0, tombstoneSize)
	key = append(binary.BigEndian.AppendUint64(key, uint64(r.Main)), '_')
	key = binary.BigEndian.AppendUint64(key, uint64(r.Sub))
	if r.Tombstone {
		key = append(key, 't')
	}
	return key
}

// Compare returns -1, 0 or 1 as r comes before, with or after other.
func (r Revision) Compare(other Revision) int {
	switch {
	case r.Main != other.Main:
		return sign(r.Main < other.Main)
	case r.Sub != other.Sub:
		return sign(r.Sub < other.Sub)
	}
	return 0
}

func sign(less bool) int {
	if less {
		return -1
	}
	return 1
}

func (r Revision) String() string { return fmt.Sprintf("%d.%d", r.Main, r.Sub) }
