// Package snapfile opens snapshot files. It recognizes a file that lacks its
// checksum, is cut off, has the other byte order, or is not a snapshot at all.
package snapfile

import (
	"errors"
	"fmt"
	"io"
	"os"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/trailer"
)

// File is an open snapshot file, or a db file copied out of a data directory. It
// is locked for reading.
type File struct {
	*os.File
	Size       int64 // bytes of the database
	HasTrailer bool  // a checksum follows the database
}

// Open opens the file at path, following symbolic links. It must be closed. A
// file that a running etcd holds is a [fault.ErrInUse] at once; a path that is not a
// regular file is a [boltfile.ErrNotRegular].
func Open(path string) (*File, error) {
	f, size, err := boltfile.OpenFile(path)
	if err != nil {
		return nil, err
	}
	file := &File{File: f, Size: size, HasTrailer: trailer.Present(size)}
	if file.HasTrailer {
		file.Size -= trailer.Size
	}
	return file, nil
}

// TotalSize is the number of bytes of the file, trailer included.
func (f *File) TotalSize() int64 {
	if f.HasTrailer {
		return f.Size + trailer.Size
	}
	return f.Size
}

// Close releases the lock and closes the file.
func (f *File) Close() error { return boltfile.CloseFile(f.File) }

// RequireTrailer returns a [fault.ErrNoTrailer] if the file does not end in a
// checksum.
func (f *File) RequireTrailer() error {
	if f.HasTrailer {
		return nil
	}
	return noTrailer("file", f, f.Size)
}

// RequireDatabase returns an error if the size bytes of r are not a database, or
// have the other byte order. It reads only the first pages.
func RequireDatabase(r io.ReaderAt, size int64) error {
	_, err := boltfile.Open(r, size)
	if errors.As(err, new(*boltfile.NotDatabaseError)) || errors.As(err, new(*boltfile.ByteOrderError)) {
		return err
	}
	return nil
}

// CheckDigest returns an error if the digest of a stream does not match its trailer.
// r is the beginning of the database. If it shows the cause, the error names it.
func CheckDigest(digest trailer.Digest, r io.ReaderAt) error {
	if !digest.Present {
		return noTrailer("stream", r, digest.Size)
	}
	if err := digest.Check(); err != nil {
		return Explain(err, r, digest.Size)
	}
	return nil
}

// noTrailer is the [fault.ErrNoTrailer] of a file or stream of size bytes, which
// may have lost its checksum together with a part of its database.
func noTrailer(what string, r io.ReaderAt, size int64) error {
	err := fmt.Errorf("%w: the %s does not end in a checksum (%d bytes)", fault.ErrNoTrailer, what, size)
	if explained := Explain(err, r, size); explained != err {
		return explained
	}
	return fmt.Errorf("%w: either it was cut off, or it is a db file copied from a data directory, "+
		"which Restore accepts with SkipHashCheck", err)
}

// Explain adds to err what the first pages of a database show: that the file ends
// before the database does, or that it has the other byte order. If the file is not
// a database at all, it returns that error instead of err.
func Explain(err error, r io.ReaderAt, size int64) error {
	_, open := boltfile.Open(r, size)
	var short *boltfile.ShortError
	switch {
	case errors.As(open, new(*boltfile.NotDatabaseError)):
		return open
	case errors.As(open, new(*boltfile.ByteOrderError)):
		return fmt.Errorf("%w; %w", err, open)
	case errors.As(open, &short):
		return fmt.Errorf("%w: %w", err, short.Truncation())
	}
	return err
}
