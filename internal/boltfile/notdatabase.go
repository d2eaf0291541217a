package boltfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/filetype"
)

// order is the byte order of this machine, in which bbolt writes.
var order = binary.NativeEndian

// otherOrder is the other byte order.
var otherOrder = func() binary.ByteOrder {
	if order.Uint16([]byte{0, 1}) == 1 {
		return binary.LittleEndian
	}
	return binary.BigEndian
}()

// ByteOrderError reports that a machine of the other byte order has written the
// database, whose meta pages are sound. It is a [fault.ErrByteOrder].
type ByteOrderError struct {
	BigEndian bool // byte order of the database; this machine has the other
}

func (e *ByteOrderError) Error() string {
	file, machine := "little-endian, as on amd64 and arm64", "big-endian, as on s390x"
	if e.BigEndian {
		file, machine = machine, file
	}
	return fmt.Sprintf("%v: the database is %s, and this machine is %s: read and restore it on a machine of its own byte order",
		fault.ErrByteOrder, file, machine)
}

// Unwrap returns [fault.ErrByteOrder].
func (e *ByteOrderError) Unwrap() error { return fault.ErrByteOrder }

// NotDatabaseError reports that the file is not a bbolt database: neither meta page
// has the magic number. It is a [fault.ErrCorrupt].
type NotDatabaseError struct {
	Head []byte // the beginning of the file, up to 512 bytes
}

func (e *NotDatabaseError) Error() string { return "not a snapshot: " + filetype.Describe(e.Head) }

// Unwrap returns [fault.ErrCorrupt].
func (e *NotDatabaseError) Unwrap() error { return fault.ErrCorrupt }

const headSize = 512

func readHead(r io.ReaderAt, size int64) ([]byte, error) {
	head := make([]byte, min(size, headSize))
	return head, readFull(r, head, 0)
}

// notDatabase returns the error for a file without a meta page that is valid in the
// byte order of this machine; first is the error of the one at its start.
func notDatabase(r io.ReaderAt, size int64, first error) error {
	_, err := open(r, size, otherOrder)
	byteOrder := &ByteOrderError{BigEndian: otherOrder == binary.BigEndian}
	other := new(noMetaError)
	switch {
	case err == nil:
		return byteOrder
	case !errors.Is(err, fault.ErrCorrupt) && !errors.As(err, &other): // the file cannot be read
		return err
	case !errors.As(err, &other):
		return fmt.Errorf("%w; %w", byteOrder, err)
	case first != errNoMagic:
		return corrupt(0, "meta page: %v, and no valid second meta page", first)
	case other.first != errNoMagic:
		return corrupt(0, "meta page in the other byte order: %v, and no valid second meta page", other.first)
	}
	head, err := readHead(r, size)
	if err != nil {
		return err
	}
	return &NotDatabaseError{Head: head}
}

// tooSmall returns the error for a file too small for two meta pages. A database
// that was cut off begins like a meta page.
func tooSmall(r io.ReaderAt, size int64) error {
	head, err := readHead(r, size)
	if err != nil {
		return err
	}
	isMark := func(b []byte) bool { return order.Uint32(b) == magic || otherOrder.Uint32(b) == magic }
	if len(head) >= pageHeaderSize+4 && !isMark(head[pageHeaderSize:]) {
		return &NotDatabaseError{Head: head}
	}
	for _, c := range head[:min(len(head), pageHeaderSize)] {
		if c > flagMeta { // the only number in the header of page 0
			return &NotDatabaseError{Head: head}
		}
	}
	return &ShortError{Size: size, Want: 2 * minPageSize}
}
