package snapshot

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"go.etcd.io/bbolt"

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
	// lastPage is how many bytes the page with the last record has.
	lastPage int64
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
// the one while the other is. It is left so that bbolt need not walk through it
// once more.
func (s *staging) database(ctx context.Context, m *V3Manager, copyTo copyFunc) error {
	return s.create(s.db(), func(f durable.File) error {
		c, err := copyTo(f)
		if err != nil {
			return err
		}
		defer func() { _ = c.finish() }() // where a report panics
		s.size = c.size
		scan := boltfile.Options{}
		if c.hashing {
			scan.Workers = besideDigest()
		} else { // a copy that shares the blocks of the snapshot was not in memory
			defer boltfile.ReadAhead(ctx, f, c.size)()
		}
		found, err := checkStructure(ctx, f, c.size, m.newMeter("restore", PhaseCheck, c.size), scan)
		if err := joinCauses(c.finish(), err); err != nil {
			return err
		}
		if err := s.awaitDisk(ctx, f); err != nil {
			return err
		}
		s.lastPage = found.lastPage
		return asCorrupt(found.db.SeedFreelist(f, found.usage))
	})
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

// mmapSize leaves room for the edit. Where bbolt must map the file anew in the
// middle of a transaction and cannot, its error does not tell the cause.
// On Windows the file would grow to that size.
func (s *staging) mmapSize(p *plan) int {
	if runtime.GOOS == "windows" {
		return 0
	}
	return int(min(max(int64(p.initialMmapSize), s.size+editSlack), maxMmapSize))
}

// edit makes the database part of the new cluster, in one transaction. bbolt
// need not sync: nobody sees the file until all of it is synced. It returns the
// latest revision if that was bumped, and otherwise 0.
func (s *staging) edit(p *plan) (revision int64, err error) {
	if p.changes.RevisionBump > 0 && s.lastPage > maxLastPage {
		return 0, fmt.Errorf("%w: RevisionBump would rewrite the page with the last record, which has %d bytes, more than %d MiB",
			ErrConfig, s.lastPage, maxLastPage>>20)
	}
	db, err := bbolt.Open(s.db(), fileMode, &bbolt.Options{
		Timeout:         time.Second, // nobody else knows the file
		InitialMmapSize: s.mmapSize(p),
		NoFreelistSync:  true,
		NoSync:          true,
		NoGrowSync:      true,
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = db.Update(func(tx *bbolt.Tx) error {
		revision, err = p.cluster.Edit(tx, p.changes)
		return err
	})
	var malformed *bootstrap.MalformedError
	var overflow *bootstrap.OverflowError
	switch {
	case errors.As(err, &malformed):
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	case errors.As(err, &overflow):
		err = fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return revision, err
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
