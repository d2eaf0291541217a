package snapshot

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/bootstrap"
	"etcd.example/snapshot/internal/durable"
)

// staging is the data directory while it is built, out of sight. Its files are
// synced when it is published.
type staging struct {
	fs     durable.FS
	snap   string // member/snap
	walDir string
	size   int64 // bytes of the database
}

func stagingFor(fsys durable.FS, p *plan, target *durable.Target) *staging {
	member := filepath.Join(target.TreeDir(), "member")
	s := &staging{fs: fsys, snap: filepath.Join(member, "snap"), walDir: target.WALTreeDir()}
	if !p.separateWAL() {
		s.walDir = filepath.Join(member, p.walName)
	}
	return s
}

func (s *staging) makeDirs() error {
	if err := durable.MkdirAll(s.fs, s.snap); err != nil {
		return err
	}
	return durable.MkdirAll(s.fs, s.walDir)
}

func (s *staging) db() string { return filepath.Join(s.snap, "db") }

const fileMode = 0o600

// create makes a file that did not exist, has write fill it, and closes it.
func (s *staging) create(path string, write func(durable.File) error) (err error) {
	f, err := s.fs.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return write(f)
}

// database stages the database: a copy whose digest and structure are checked,
// the one while the other is, and which then becomes part of the new cluster. It
// returns the latest revision if that was bumped, and otherwise 0.
func (s *staging) database(ctx context.Context, m *V3Manager, p *plan, copyTo copyFunc) (revision int64, err error) {
	err = s.create(s.db(), func(f durable.File) error {
		c, err := copyTo(f)
		if err != nil {
			return err
		}
		defer func() { _ = c.finish() }() // where a report panics
		s.size = c.size
		scan := boltfile.Options{}
		if c.hashing {
			scan.Workers = besideDigest()
		} else { // a reflink was not in memory
			defer boltfile.ReadAhead(ctx, f, c.size)()
		}
		checked, err := checkStructure(ctx, f, c.size, m.newMeter("restore", PhaseCheck, c.size), scan)
		if err := joinCauses(c.finish(), err); err != nil {
			return err
		}
		if err := s.awaitDisk(ctx, f); err != nil {
			return err
		}
		revision, err = edit(ctx, checked, f, p)
		return err
	})
	return revision, err
}

// edit makes a checked copy part of the new cluster, in one transaction.
func edit(ctx context.Context, c checkedCopy, f durable.File, p *plan) (revision int64, err error) {
	tx := c.db.Edit(ctx, f, c.buckets)
	if revision, err = p.cluster.Edit(tx, p.changes); err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = tx.Commit()
	}
	var malformed *bootstrap.MalformedError
	var overflow *bootstrap.OverflowError
	switch {
	case errors.As(err, &malformed):
		return 0, fmt.Errorf("edit database: %w: %w", ErrCorrupt, err)
	case errors.As(err, &overflow):
		return 0, fmt.Errorf("edit database: %w: %w", ErrConfig, err)
	case err != nil:
		return 0, fmt.Errorf("edit database: %w", asCorrupt(err))
	}
	return revision, nil
}

// awaitDisk waits until the database is on the disk, a piece at a time, so that
// the sync at the end, which cannot be cancelled, has little left to do.
func (s *staging) awaitDisk(ctx context.Context, f durable.File) error {
	return inPieces(ctx, 0, s.size, func(off, n int64) error {
		if err := s.fs.AwaitWriteback(f, off, n); err != nil {
			return fmt.Errorf("wait for write-back: %w", err)
		}
		return nil
	})
}

func (s *staging) writeWAL(cluster *bootstrap.Cluster) error {
	return s.create(filepath.Join(s.walDir, bootstrap.WALName), func(f durable.File) error {
		if err := s.fs.Allocate(f, bootstrap.SegmentSize); err != nil {
			return err
		}
		w := bufio.NewWriter(f)
		if err := cluster.WriteWAL(w); err != nil {
			return err
		}
		return w.Flush()
	})
}

func (s *staging) writeSnap(cluster *bootstrap.Cluster) error {
	name, content, err := cluster.Snap()
	if err != nil {
		return err
	}
	return s.create(filepath.Join(s.snap, name), func(f durable.File) error {
		n, err := f.Write(content)
		if err == nil && n < len(content) {
			err = io.ErrShortWrite
		}
		return err
	})
}
