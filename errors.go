package snapshot

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/filetype"
	"etcd.example/snapshot/internal/keyspace"
	"etcd.example/snapshot/internal/trailer"
)

// Sentinel errors for use with [errors.Is]. Errors that are none of these (a
// missing file, a refused permission, a cancelled context, a gRPC status) keep
// their own identity and are found the same way.
var (
	// ErrEndpoints: Save was given no endpoint or more than one.
	ErrEndpoints = errors.New("exactly one endpoint is needed")
	// ErrUnreachable: Save could not connect to the server within the connect
	// timeout, or one side refuses the certificate of the other, or the server
	// does not speak TLS. The message has the last reason.
	ErrUnreachable = errors.New("no connection to the server")
	// ErrStalled: the server, once connected, sent no snapshot bytes for the
	// stall timeout.
	ErrStalled = errors.New("no bytes from the server within the stall timeout")
	// ErrTruncated: a stream or a file ended before its announced end.
	ErrTruncated = errors.New("ended early")
	// ErrNoTrailer: the SHA-256 digest that ends every streamed snapshot is
	// missing, as it is in a db file copied out of a data directory.
	ErrNoTrailer = trailer.ErrMissing
	// ErrChecksum: the digest of the bytes differs from the one in the trailer.
	ErrChecksum = trailer.ErrMismatch
	// ErrCorrupt: the bytes are not a well-formed etcd database. The message
	// names the page, or the record, and the reason; for a file that is no
	// database at all it says what the file is instead.
	ErrCorrupt = errors.New("corrupt snapshot")
	// ErrExists: the target of a restore already exists.
	ErrExists = durable.ErrExists
	// ErrByteOrder: the snapshot comes from a machine of the other byte order.
	// (etcd runs on one big-endian platform, s390x.) The file is not damaged:
	// read and restore it on a machine of its own byte order.
	ErrByteOrder = errors.New("wrong byte order for this machine")
	// ErrInUse: the file or the target is locked, in this process or another: by
	// a running etcd, or by a restore that is still at work.
	ErrInUse = durable.ErrInUse
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

// refuse returns an error for a file that is no database at all, and for one in
// the other byte order: the first pages tell both.
func refuse(r io.ReaderAt, size int64) error {
	_, err := boltfile.Open(r, size)
	if errors.As(err, new(*boltfile.ForeignError)) || errors.As(err, new(*boltfile.ByteOrderError)) {
		return asCorrupt(err)
	}
	return nil
}

// noTrailer is the error for a file or stream of that size, which may have lost
// its trailer together with a part of its database.
func noTrailer(what string, r io.ReaderAt, size int64) error {
	err := fmt.Errorf("%w: the %s does not end in a checksum (%d bytes)", ErrNoTrailer, what, size)
	if explained := explain(err, r, size); explained != err {
		return explained
	}
	return fmt.Errorf("%w: either it was cut off, or it is a db file copied from a data directory, "+
		"which Restore accepts with SkipHashCheck", err)
}

// explain adds what the first pages tell to err: that the file ends before the
// database does, or that it is in the other byte order. If the file is no
// database at all, that takes the place of err.
func explain(err error, r io.ReaderAt, size int64) error {
	_, open := boltfile.Open(r, size)
	var short *boltfile.ShortError
	switch {
	case errors.As(open, new(*boltfile.ForeignError)):
		return asCorrupt(open)
	case errors.As(open, new(*boltfile.ByteOrderError)):
		return fmt.Errorf("%w; %w", err, asCorrupt(open))
	case errors.As(open, &short):
		return fmt.Errorf("%w: %w: %w", err, ErrTruncated, short)
	}
	return err
}

// notSnapshot is an [ErrCorrupt] that says what a file is instead.
type notSnapshot struct{ head []byte }

func (e *notSnapshot) Error() string { return "not a snapshot: " + filetype.Describe(e.head) }

func (e *notSnapshot) Is(target error) bool { return target == ErrCorrupt }

// asCorrupt gives the errors of the inner packages the sentinels of this one.
func asCorrupt(err error) error {
	var foreign *boltfile.ForeignError
	if errors.As(err, &foreign) {
		return &notSnapshot{foreign.Head}
	}
	short := errors.As(err, new(*boltfile.ShortError))
	corrupt := errors.As(err, new(*boltfile.CorruptError)) || errors.Is(err, keyspace.ErrMalformed)
	byteOrder := errors.As(err, new(*boltfile.ByteOrderError))
	if short {
		err = fmt.Errorf("%w: %w", ErrTruncated, err)
	}
	if short || corrupt {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if byteOrder {
		err = fmt.Errorf("%w: %w", ErrByteOrder, err)
	}
	return err
}

// targetError gives the errors of staging the sentinels of this package.
func targetError(err error) error {
	if errors.Is(err, durable.ErrNested) {
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
