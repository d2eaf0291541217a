package snapshot

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/keyspace"
	"etcd.example/snapshot/internal/trailer"
)

// What a caller may want to tell apart. Every error of this package that falls
// under one of these matches it with [errors.Is]; anything else (a missing
// file, a refused permission, a cancelled context, a gRPC status) keeps its own
// identity and is found the same way.
var (
	// ErrEndpoints: Save was given no endpoint or more than one.
	ErrEndpoints = errors.New("exactly one endpoint is needed")
	// ErrStalled: the server sent no snapshot bytes for the stall timeout.
	ErrStalled = errors.New("no bytes from the server within the stall timeout")
	// ErrTruncated: a stream or a file ended before its announced end.
	ErrTruncated = errors.New("ended early")
	// ErrNoTrailer: the SHA-256 digest that ends every streamed snapshot is
	// missing, as it is in a db file copied out of a data directory.
	ErrNoTrailer = errors.New("no SHA-256 trailer")
	// ErrChecksum: the digest of the bytes differs from the one in the trailer.
	ErrChecksum = errors.New("SHA-256 mismatch")
	// ErrCorrupt: the bytes are not a well-formed etcd database. The message
	// names the page, or the record, and the reason.
	ErrCorrupt = errors.New("corrupt snapshot")
	// ErrExists: the target of a restore already exists.
	ErrExists = errors.New("target already exists")
	// ErrInUse: another process holds the file or the target: a running etcd,
	// or a restore that is still at work.
	ErrInUse = errors.New("in use by another process")
	// ErrConfig: the RestoreConfig contradicts itself or cannot be carried out.
	ErrConfig = errors.New("invalid configuration")
)

// Error is the type of every error that this package returns. Op is the call
// ("save", "status", "verify", "restore"), Path the snapshot file that it was
// given, empty where there is none. Err is what went wrong, with the path where
// that is another; [errors.Is] and [errors.As] see through to it.
type Error struct {
	Op   string
	Path string
	Err  error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("snapshot: ")
	b.WriteString(e.Op)
	if e.Path != "" {
		b.WriteString(" ")
		b.WriteString(e.Path)
	}
	b.WriteString(": ")
	b.WriteString(e.Err.Error())
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// wrap turns *err into an *Error, once, at the edge of the API.
func wrap(op, path string, err *error) {
	if *err != nil {
		*err = &Error{Op: op, Path: path, Err: *err}
	}
}

// noTrailer is the error for a file of that size, which may have lost its
// trailer together with a part of its database.
func noTrailer(r io.ReaderAt, size int64) error {
	return explainShort(fmt.Errorf("%w: %d bytes are not whole pages and a digest", ErrNoTrailer, size), r, size)
}

// explainShort adds to err that the database ends before the size that its meta
// page tells, if that is so.
func explainShort(err error, r io.ReaderAt, size int64) error {
	var short *boltfile.ShortError
	if _, open := boltfile.Open(r, size); errors.As(open, &short) {
		return fmt.Errorf("%w: %w: %w", err, ErrTruncated, short)
	}
	return err
}

// asCorrupt gives the errors of the inner packages the sentinels of this one.
func asCorrupt(err error) error {
	var corrupt *boltfile.CorruptError
	var short *boltfile.ShortError
	switch {
	case errors.As(err, &short):
		return fmt.Errorf("%w: %w: %w", ErrCorrupt, ErrTruncated, err)
	case errors.As(err, &corrupt), errors.Is(err, keyspace.ErrMalformed):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// trailerError gives what [trailer.Digest.Check] found the identity that callers
// know.
func trailerError(err error) error {
	if errors.Is(err, trailer.ErrMissing) {
		return fmt.Errorf("%w: %w", ErrNoTrailer, err)
	}
	return fmt.Errorf("%w: %w", ErrChecksum, err)
}

// targetError gives the errors of staging the sentinels of this package.
func targetError(err error) error {
	switch {
	case errors.Is(err, durable.ErrInUse):
		return fmt.Errorf("%w: %w", ErrInUse, err)
	case errors.Is(err, durable.ErrExists):
		return fmt.Errorf("%w: %w", ErrExists, err)
	case errors.Is(err, durable.ErrNested):
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return err
}

// truncated marks the error of a file that ended, since it was opened, before
// the size it had.
func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", ErrTruncated, err)
	}
	return err
}

// joinCauses returns the errors that are not nil in one line.
func joinCauses(first, second error) error {
	switch {
	case first == nil:
		return second
	case second == nil || first.Error() == second.Error():
		return first
	}
	return fmt.Errorf("%w; %w", first, second)
}
