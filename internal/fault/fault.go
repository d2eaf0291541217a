// Package fault holds the sentinel errors of the library. An error says which of
// them it is where it arises; package snapshot exports them.
package fault

import (
	"errors"
	"fmt"
	"io"
)

// Each is documented where package snapshot exports it.
var (
	ErrEndpoints   = errors.New("exactly one endpoint is needed")
	ErrUnreachable = errors.New("no connection to the server")
	ErrStalled     = errors.New("no bytes from the server within the stall timeout")
	ErrTruncated   = errors.New("ended early")
	ErrNoTrailer   = errors.New("no SHA-256 trailer")
	ErrChecksum    = errors.New("SHA-256 mismatch")
	ErrCorrupt     = errors.New("corrupt snapshot")
	ErrByteOrder   = errors.New("wrong byte order for this machine")
	ErrExists      = errors.New("already exists")
	ErrInUse       = errors.New("in use")
	ErrConfig      = errors.New("invalid configuration")
	ErrReadOnly    = errors.New("a snapshot is read-only")
	ErrMismatch    = errors.New("the snapshot differs from the cluster")
	ErrCompacted   = errors.New("the revision has been compacted")
	ErrFuture      = errors.New("the revision is in the future")
)

// Truncated marks the error of a read that met the end of a file or stream before
// the bytes that belong to it.
func Truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", ErrTruncated, err)
	}
	return err
}

// Join returns the errors that are not nil in one line, and two that read the
// same once.
func Join(first, second error) error {
	switch {
	case first == nil:
		return second
	case second == nil || first.Error() == second.Error():
		return first
	}
	return fmt.Errorf("%w; %w", first, second)
}
