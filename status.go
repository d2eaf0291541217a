package snapshot

import (
	"context"

	"etcd.example/snapshot/internal/inspect"
)

// Status describes a snapshot file.
type Status struct {
	// Hash is the CRC-32C over the names and entries of all buckets.
	Hash uint32 `json:"hash"`
	// Revision is the latest revision of the key space, 0 when it is empty.
	Revision int64 `json:"revision"`
	// TotalKey is the number of live keys: those whose last record is not a
	// tombstone. The empty record that a revision bump leaves counts as one, as
	// it does with etcd.
	TotalKey int `json:"totalKey"`
	// TotalSize is the size of the database in bytes, without the trailer.
	TotalSize int64 `json:"totalSize"`
	// Version is the storage version, empty before etcd 3.6.
	Version string `json:"version"`
}

// Status says what is in the snapshot file, or the copied db file, at dbPath.
// See [V3Manager.StatusContext].
func (m *V3Manager) Status(dbPath string) (Status, error) {
	return m.StatusContext(context.Background(), dbPath)
}

// StatusContext says what is in the snapshot file, or the copied db file, at
// dbPath. It reads the pages in use once, on all processors, and checks the
// structure of the database on the way, more strictly than bbolt's own checker.
// It does not compare the digest in the trailer: that is [V3Manager.Verify]. On
// Linux a file that is not in the page cache is read into it meanwhile, the free
// pages as well.
//
// A symbolic link is followed. The file is locked for reading meanwhile and
// never written to. Errors: [ErrCorrupt] with the page and the reason, together
// with [ErrTruncated] when the file ends before its database does, or with what
// the file is instead of a snapshot; [ErrByteOrder] for the snapshot of a machine
// of the other byte order; [ErrInUse] when a running etcd holds the file; an error
// for a path that is not a regular file; fs.ErrNotExist and the like; the
// context's error, within 100 ms of its end.
// On an error the Status is zero.
func (m *V3Manager) StatusContext(ctx context.Context, dbPath string) (_ Status, err error) {
	defer wrap("status", dbPath, &err)
	status, err := inspect.File(ctx, dbPath, m.report("status"))
	return Status(status), err
}

// Verify proves the snapshot file at dbPath: the SHA-256 in its trailer is that
// of its database, the structure of the database is sound, and every record of
// the key space decodes, with revisions that rise and agree with their records.
// The digest and the walk over the pages run side by side; the cost is close to
// that of SHA-256 alone. Afterwards the file is in the page cache, also one that a
// Save has just left out of it.
//
// Errors are those of [V3Manager.StatusContext], and [ErrNoTrailer] or
// [ErrChecksum]. Where both the digest and the structure are wrong the error
// matches both sentinels and says which page. In the other byte order only the
// digest is compared: [ErrByteOrder] without [ErrChecksum] says that it is right.
// On an error the Status is zero.
func (m *V3Manager) Verify(ctx context.Context, dbPath string) (_ Status, err error) {
	defer wrap("verify", dbPath, &err)
	status, err := inspect.Verify(ctx, dbPath, m.report("verify"))
	return Status(status), err
}
