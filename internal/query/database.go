// Package query answers questions about the key space of a snapshot: what a
// member would have answered at its moment.
//
//	Open ──> index of the live keys
//	one key     index ──> piece ──> record
//	a range     one pass over the records ──> the smallest keys ──> their records
//	HashKV      checksums of the pieces; a pass over those that a compaction touches
package query

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/inspect"
	"etcd.example/snapshot/internal/meter"
	"etcd.example/snapshot/internal/schema"
	"etcd.example/snapshot/internal/snapfile"
)

// Database is an open snapshot. It is safe for concurrent use.
type Database struct {
	*inspect.Indexed
	Current   int64 // the revision of a server with this database
	Compacted int64 // the compacted revision, finished or not
	Finished  int64 // the compaction that has been finished
	Scheduled int64 // the compaction that has been begun
	Info      *Info

	records *boltfile.BucketReader // of bucket "key", nil if there is none

	file *snapfile.File

	maxWindow int64 // bytes; the constant but in tests

	mu     sync.Mutex
	calls  int // under way
	closed bool
	window *window // the keys that were found last
}

// ErrClosed: the Database was closed.
var ErrClosed = errors.New("the Reader is closed")

// Open opens the snapshot file at path and checks its structure.
func Open(ctx context.Context, path string, report meter.Report) (*Database, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := snapfile.Open(path)
	if err != nil {
		return nil, err
	}
	opened := false
	defer func() {
		if !opened { // also if a report panics
			_ = f.Close() // only read from
		}
	}()
	stop := boltfile.ReadAhead(ctx, f.File, f.Size)
	defer stop()
	m := report.Start(meter.Read, f.Size)
	db, err := newDatabase(ctx, f, f.Size, boltfile.Options{Read: m.Add})
	if err != nil {
		return nil, err
	}
	db.file = f
	m.Finish()
	opened = true
	return db, nil
}

// newDatabase indexes the database in the first size bytes of r.
func newDatabase(ctx context.Context, r io.ReaderAt, size int64, scan boltfile.Options) (*Database, error) {
	indexed, err := inspect.Open(ctx, r, size, scan)
	if err != nil {
		return nil, err
	}
	db := &Database{Indexed: indexed, maxWindow: maxWindow}
	if b, ok := indexed.Bucket(schema.BucketKey); ok {
		if db.records, err = indexed.DB.Reader(ctx, b.Bucket); err != nil {
			return nil, err
		}
		if db.records.Pieces() != len(indexed.Pieces) {
			return nil, fmt.Errorf("%w: the file changes while it is read", fault.ErrCorrupt)
		}
	}
	if db.Finished, err = db.metaRevision(ctx, schema.MetaFinishedCompact); err != nil {
		return nil, err
	}
	if db.Scheduled, err = db.metaRevision(ctx, schema.MetaScheduledCompact); err != nil {
		return nil, err
	}
	db.Compacted = max(db.Finished, db.Scheduled)
	db.Current = max(indexed.Status.Revision, db.Compacted, 1) // a server begins with revision 1
	if db.Info, err = db.info(ctx); err != nil {
		return nil, err
	}
	return db, ctx.Err()
}

// metaRevision is the main revision in a record of bucket "meta", 0 if there is no
// such record.
func (db *Database) metaRevision(ctx context.Context, name string) (int64, error) {
	value, err := db.record(ctx, schema.BucketMeta, name)
	if err != nil || len(value) == 0 {
		return 0, err
	}
	if len(value) < 8 {
		return 0, fmt.Errorf("%w: bucket %q: %s has %d bytes", fault.ErrCorrupt, schema.BucketMeta, name, len(value))
	}
	return max(int64(binary.BigEndian.Uint64(value)), 0), nil
}

// Close releases the file, its lock and the memory, or lets the last of the calls do
// that that are under way. Later calls return ErrClosed.
func (db *Database) Close() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return nil
	}
	db.closed = true
	if db.calls > 0 {
		return nil
	}
	return db.release()
}

func (db *Database) release() error {
	db.window, db.Index, db.records = nil, nil, nil
	if db.file == nil {
		return nil
	}
	return db.file.Close()
}

// enter begins a call, which must end with leave.
func (db *Database) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return ErrClosed
	}
	db.calls++
	return nil
}

func (db *Database) leave() {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.calls--; db.calls == 0 && db.closed {
		_ = db.release() // only read from
	}
}

// revision checks a revision that is asked for: 0 is the current one.
func (db *Database) revision(rev int64) (int64, error) {
	switch {
	case rev <= 0:
		return db.Current, nil
	case rev > db.Current:
		return 0, fmt.Errorf("%w: revision %d, the snapshot ends at %d: %w", fault.ErrFuture, rev, db.Current, rpctypes.ErrFutureRev)
	case rev < db.Compacted:
		return 0, db.compacted(rev)
	}
	return rev, nil
}

func (db *Database) compacted(rev int64) error {
	return fmt.Errorf("%w: revision %d, the snapshot is compacted at %d: %w", fault.ErrCompacted, rev, db.Compacted, rpctypes.ErrCompacted)
}

// upTo returns the numbers of the pieces that may hold records up to a revision.
func (db *Database) upTo(rev int64) []int {
	var numbers []int
	for i, p := range db.Pieces {
		if p.Found && p.First.Main <= rev {
			numbers = append(numbers, i)
		}
	}
	return numbers
}
