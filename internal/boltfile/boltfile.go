// Package boltfile reads and edits bbolt database files: bounds-checked, in
// parallel and through bounded buffers. It never maps the file, follows no
// reference that it has not checked and does not interpret the records.
//
// [Open] chooses between the two meta pages. [DB.Scan] then walks every page that
// is in use exactly once, checks its structure and hands its leaf pages to
// visitors. [DB.Edit] changes a database that Scan has found sound.
//
// The rules are those of the file format as bbolt 1.x and its predecessor write
// it. They are stricter than bbolt's own checker, in points that hold in every
// file that bbolt has written: the data of a page's elements follows the element
// table without gaps, a page has no more overflow pages than its elements need, all
// leaf pages of a bucket are equally deep, inline buckets hold no buckets, a branch
// page has two elements or more, a leaf page below one is not empty, and each page
// starts with the key that it has in its parent page. bbolt relies on the last
// three when it writes.
package boltfile

import (
	"errors"
	"fmt"
	"io"

	"etcd.example/snapshot/internal/fault"
)

// Pgid is the number of a page: its offset in the file is the number times the
// page size.
type Pgid uint64

// CorruptError names the page that breaks a rule of the format, and the rule. It is
// a [fault.ErrCorrupt].
type CorruptError struct {
	Page   Pgid
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%v: page %d: %s", fault.ErrCorrupt, e.Page, e.Reason)
}

// Unwrap returns [fault.ErrCorrupt].
func (e *CorruptError) Unwrap() error { return fault.ErrCorrupt }

func corrupt(page Pgid, format string, args ...any) error {
	return &CorruptError{Page: page, Reason: fmt.Sprintf(format, args...)}
}

// ShortError reports that the file ends before a byte that belongs to it. It is a
// [fault.ErrCorrupt] and a [fault.ErrTruncated].
type ShortError struct {
	Size int64 // bytes that the file has
	Want int64 // bytes that it should have at least
}

func (e *ShortError) Error() string {
	return fmt.Sprintf("%v: %v", fault.ErrCorrupt, e.Truncation())
}

// Unwrap returns [fault.ErrCorrupt] and [fault.ErrTruncated].
func (e *ShortError) Unwrap() []error { return []error{fault.ErrCorrupt, fault.ErrTruncated} }

// Truncation returns the error as a [fault.ErrTruncated] alone.
func (e *ShortError) Truncation() error {
	return fmt.Errorf("%w: database ends at byte %d, want at least %d bytes", fault.ErrTruncated, e.Size, e.Want)
}

// readFull fills buf from offset off. It returns a *ShortError if the file ends
// earlier, because it was cut or shrinks meanwhile.
func readFull(r io.ReaderAt, buf []byte, off int64) error {
	n, err := r.ReadAt(buf, off)
	if n == len(buf) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return &ShortError{Size: off + int64(n), Want: off + int64(len(buf))}
	}
	return fmt.Errorf("read %d bytes at offset %d: %w", len(buf), off, err)
}
