package snapshot

import (
	"errors"
	"strings"
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
// ("save", "status", "verify", "restore"), Path the file or directory it was
// about, empty where there is none. Err is what went wrong; [errors.Is] and
// [errors.As] see through to it.
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
