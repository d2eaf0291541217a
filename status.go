package snapshot

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot/internal/inspect"
	"etcd.example/snapshot/internal/match"
	"etcd.example/snapshot/internal/query"
)

// Status describes a snapshot file.
type Status struct {
	// Hash is the CRC-32C over the names and entries of all buckets.
	Hash uint32 `json:"hash"`
	// Revision is the latest revision of the key space, 0 when it is empty.
	Revision int64 `json:"revision"`
	// TotalKey is the number of live keys: those whose last record is not a
	// tombstone. The empty record that a revision bump creates counts as one, as in
	// etcd.
	TotalKey int `json:"totalKey"`
	// TotalSize is the size of the database in bytes, without the trailer.
	TotalSize int64 `json:"totalSize"`
	// Version is the storage version, empty before etcd 3.6.
	Version string `json:"version"`
}

// Status reports what the snapshot file, or the copied db file, at dbPath holds.
// See [V3Manager.StatusContext].
func (m *V3Manager) Status(dbPath string) (Status, error) {
	return m.StatusContext(context.Background(), dbPath)
}

// StatusContext reports what the snapshot file, or the copied db file, at dbPath
// holds. It reads the pages in use once, on all processors. Meanwhile it checks the
// structure of the database, more strictly than bbolt's own checker. It does not
// compare the checksum: [V3Manager.Verify] does. On Linux it also reads a file that
// is not in the page cache into the page cache, free pages included.
//
// It follows a symbolic link, locks the file for reading, and never writes to it.
// Errors:
//   - [ErrCorrupt] with the page and the reason, or with what the file is instead
//     of a snapshot. It matches [ErrTruncated] too if the file ends before its
//     database does.
//   - [ErrByteOrder] for a snapshot from a machine of the other byte order.
//   - [ErrInUse] if a running etcd holds the file.
//   - An error for a path that is not a regular file, fs.ErrNotExist and the like.
//   - The context's error, within 100 ms of its end.
//
// On error the Status is zero.
func (m *V3Manager) StatusContext(ctx context.Context, dbPath string) (_ Status, err error) {
	defer wrap("status", dbPath, &err)
	status, err := inspect.File(ctx, dbPath, m.report("status"))
	return Status(status), err
}

// Verify proves the snapshot file at dbPath: its checksum matches, the structure of
// its database is sound, and every record of the key space decodes, with revisions
// that rise and agree with their records. It computes the checksum and reads the
// pages at the same time, so it takes little more time than SHA-256 alone.
// Afterwards the file is in the page cache, even if a Save has just left it out.
//
// Errors are those of [V3Manager.StatusContext], and [ErrNoTrailer] or
// [ErrChecksum]. If both the checksum and the structure are wrong, the error
// matches both sentinels and names the page. In the other byte order Verify
// compares only the checksum: [ErrByteOrder] without [ErrChecksum] means that it
// matches. On error the Status is zero.
func (m *V3Manager) Verify(ctx context.Context, dbPath string) (_ Status, err error) {
	defer wrap("verify", dbPath, &err)
	status, err := inspect.Verify(ctx, dbPath, m.report("verify"))
	return Status(status), err
}

// Match compares the snapshot file, or the copied db file, at dbPath with each member
// in cfg.Endpoints: it asks them all for HashKV at the latest revision of the
// snapshot, and computes the same hash from the file, for the revision at which the
// member has compacted. On nil, all of them have the key space of the snapshot in
// their history, to the byte. Leases, users, members and alarms are not compared.
//
// Match opens the file as [V3Manager.Open] does, with its errors. One endpoint or more
// is needed, else [ErrEndpoints]. Connecting, login and timeouts are those of
// [V3Manager.Save], for each endpoint. A member reads its whole key space before it
// answers, which takes seconds for each GB: the stall timeout must be longer.
//
// Errors name the endpoints:
//   - [ErrMismatch] with both hashes for each member that differs.
//   - [ErrCompacted] if a member no longer has the revision, or if it compacted at
//     that very revision and answers with a hash of before that.
//   - [ErrFuture] if a member has not reached the revision when ctx ends. Until then
//     Match asks it again, so that a follower may lag behind.
//   - [ErrUnreachable], [ErrStalled], an error of the server, the error of ctx.
//
// An error of one member does not hide those of others.
func (m *V3Manager) Match(ctx context.Context, cfg clientv3.Config, dbPath string) (err error) {
	defer wrap("match", dbPath, &err)
	if len(cfg.Endpoints) == 0 {
		return fmt.Errorf("%w: got none", ErrEndpoints)
	}
	db, err := query.Open(ctx, dbPath, m.report("match"))
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // only read from
	return match.Members(ctx, db, cfg.Endpoints, func(ctx context.Context, endpoint string, revision int64) (match.Answer, error) {
		h, err := m.fetch().HashKV(ctx, cfg, endpoint, revision)
		return match.Answer{Hash: h.Hash, CompactRevision: h.CompactRevision, Current: h.CurrentRevision}, err
	})
}
