package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"syscall"

	"go.uber.org/zap"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/trailer"
)

// Restore makes a new etcd data directory from a snapshot file. See
// [V3Manager.RestoreContext].
func (m *V3Manager) Restore(cfg RestoreConfig) error {
	return m.RestoreContext(context.Background(), cfg)
}

// RestoreContext makes a new etcd data directory, and the WAL directory, from
// the snapshot file cfg.SnapshotPath, for the member cfg.Name of a new cluster.
// All members restored with the same InitialCluster and InitialClusterToken
// agree on all ids and form one cluster. The snapshot file is only read.
//
// The outcome is absent or complete. On nil, every file and directory is on
// disk, including the parent directories that it created; directories that it
// creates have permissions 0700, files 0600, and an existing data directory keeps
// its own. On any error nothing is left. When the process is killed or the power
// fails there is either the complete data directory or none; the same call made
// again removes what the killed one left, there is nothing to clean up by hand. Calls at the same time for one directory exclude
// each other: one wins, the others get [ErrExists] or [ErrInUse], and so it is
// between processes.
//
// Nothing is trusted unchecked: the digest of the copied bytes is compared with
// the trailer, the structure of the copy is checked meanwhile, and only then is
// the copy edited, in one transaction. The file is never mapped into memory, so
// a 32-bit process restores databases of any size.
//
// Errors are [ErrConfig], before anything is written, unless the file system
// turns out to take two names for one when their directories are created;
// [ErrExists] when the data directory exists (see AllowEmptyDataDir) or the WAL
// directory does;
// [ErrNoTrailer] and [ErrChecksum] unless SkipHashCheck is set; [ErrCorrupt],
// with [ErrTruncated] where the file ends too early; [ErrByteOrder], before
// anything is written; [ErrInUse] also when a running etcd holds the snapshot
// file; syscall.ENOSPC, with how much space is needed and how much is free, even
// if the copy would be a reflink; the context's error.
//
// Once its context has ended the call returns within 100 ms plus the time that it
// takes to remove what was copied: about 0.06 s a GB on ext4, 0.02 s on XFS, and
// 0.3 s on an ext4 without a journal that discards blocks as they become free. An
// overloaded disk or processor can make both longer, since nothing interrupts a
// single system call; such calls were seen to take 0.4 s. A call that has begun to
// publish the directory is no longer cancelled. Nothing runs on after the return.
//
// A symbolic link above the target is followed. One at the target itself is
// something that exists; with AllowEmptyDataDir it is followed too.
func (m *V3Manager) RestoreContext(ctx context.Context, cfg RestoreConfig) (err error) {
	defer wrap("restore", cfg.SnapshotPath, &err)
	m = m.withDefaults()
	if err := ctx.Err(); err != nil {
		return err
	}
	p, err := cfg.resolve(ctx, m.fs, false)
	if err != nil {
		return err
	}
	f, size, err := openDatabase(p.snapshotPath)
	if err != nil {
		return err
	}
	defer func() { _ = boltfile.CloseFile(f) }() // only read from
	if !p.skipHashCheck && !trailer.Present(size) {
		return noTrailer("file", f, size)
	}
	if err := refuse(f, size); err != nil {
		return err
	}
	if err := checkBump(ctx, f, size, p.changes); err != nil {
		return err
	}
	return m.restore(ctx, p, size, func(dst durable.File) (copied, error) {
		c := fileCopy{fs: m.fs, src: f, size: size, dst: dst, skipHash: p.skipHashCheck}
		return c.run(ctx, m.newMeter("restore", PhaseCopy, size))
	})
}

// RestoreFrom is [V3Manager.RestoreContext] with the snapshot read from r to
// its end, and without a second copy of it on disk. cfg.SnapshotPath must be
// empty. What r returns is checked like a file: a stream that ends early is
// [ErrTruncated] or, where its beginning does not tell, [ErrNoTrailer] or
// [ErrChecksum]; an error of r ends the restore and is found with [errors.Is]. A
// RevisionBump with no room for it is [ErrConfig] after r has been read.
// A Read that blocks cannot be cancelled: when ctx ends, RestoreFrom returns
// after the Read that is under way. r is read on the calling goroutine. 100 Reads
// in a row that return neither a byte nor an error are [io.ErrNoProgress]. When r
// panics, so does RestoreFrom, and nothing is left.
func (m *V3Manager) RestoreFrom(ctx context.Context, r io.Reader, cfg RestoreConfig) (err error) {
	defer wrap("restore", "", &err)
	m = m.withDefaults()
	if err := ctx.Err(); err != nil {
		return err
	}
	p, err := cfg.resolve(ctx, m.fs, true)
	if err != nil {
		return err
	}
	return m.restore(ctx, p, 0, func(dst durable.File) (copied, error) {
		c := streamCopy{fs: m.fs, src: r, dst: dst, skipHash: p.skipHashCheck}
		return c.run(ctx, m.newMeter("restore", PhaseCopy, 0))
	})
}

// copyFunc puts a database into a file, without its trailer. What follows the
// copying, such as the digest, may still be under way when it returns.
type copyFunc func(durable.File) (copied, error)

// restore carries out a plan. snapshotSize is what is known of the size of the
// snapshot in advance.
func (m *V3Manager) restore(ctx context.Context, p *plan, snapshotSize int64, copyTo copyFunc) (err error) {
	m.lg.Info("restoring snapshot", zap.String("path", p.snapshotPath),
		zap.String("data-dir", p.dataDir), zap.String("wal-dir", p.walDir))

	target, err := m.openTarget(p)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := target.Cleanup(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("clean up: %w", cerr))
		}
	}()
	if err := m.checkSpace(p, target, snapshotSize); err != nil {
		return err
	}

	staged := stagingFor(target.FS(), p, target)
	if err := staged.makeDirs(); err != nil {
		return fmt.Errorf("create directories: %w", err)
	}
	bumped, err := staged.database(ctx, m, p, copyTo)
	if err != nil {
		return err
	}
	if bumped != 0 {
		m.lg.Info("bumped latest revision and marked it compacted", zap.Int64("revision", bumped))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := staged.writeWAL(p.cluster); err != nil {
		return fmt.Errorf("write WAL: %w", err)
	}
	if err := staged.writeSnap(p.cluster); err != nil {
		return fmt.Errorf("write snapshot file: %w", err)
	}

	mt := m.newMeter("restore", PhasePublish, 1)
	if err := ctx.Err(); err != nil { // also from the report just now
		return err
	}
	if err := target.Commit(); err != nil {
		return targetError(err)
	}
	mt.finish()
	m.lg.Info("restored snapshot", zap.String("path", p.snapshotPath),
		zap.String("data-dir", p.dataDir), zap.String("wal-dir", p.walDir),
		zap.Stringer("member-id", p.cluster.LocalID()), zap.Stringer("cluster-id", p.cluster.ClusterID()))
	return nil
}

func (m *V3Manager) openTarget(p *plan) (*durable.Target, error) {
	cfg := durable.TargetConfig{Dir: p.dataDir, AllowEmptyDir: p.allowEmptyDataDir}
	if p.separateWAL() {
		cfg.WALDir = p.walDir
	}
	target, err := durable.Open(m.fs, cfg)
	if err != nil {
		return nil, targetError(err)
	}
	return target, nil
}

// checkSpace compares the free space with what the restore needs, as far as
// both are known.
func (m *V3Manager) checkSpace(p *plan, target *durable.Target, snapshotSize int64) error {
	data, wal := p.spaceNeeded(snapshotSize)
	free, err := m.freeSpace(target.TreeDir())
	if err != nil {
		return err
	}
	if p.separateWAL() {
		freeWAL, err := m.freeSpace(filepath.Dir(target.WALTreeDir()))
		if err != nil {
			return err
		}
		same, err := durable.SameDevice(m.fs, filepath.Dir(target.TreeDir()), filepath.Dir(target.WALTreeDir()))
		if err != nil {
			return err
		}
		if same {
			data += wal
		}
		if freeWAL < wal {
			return noSpace(p.walDir, wal, freeWAL)
		}
	}
	if free < data {
		return noSpace(p.dataDir, data, free)
	}
	return nil
}

func noSpace(dir string, need, free int64) error {
	return fmt.Errorf("%w: %s needs %d bytes, %d are free", syscall.ENOSPC, dir, need, free)
}

// freeSpace returns the number of free bytes on the file system of dir, or the
// largest number if the file system does not tell.
func (m *V3Manager) freeSpace(dir string) (int64, error) {
	free, err := m.fs.FreeSpace(dir)
	if errors.Is(err, errors.ErrUnsupported) {
		return math.MaxInt64, nil
	}
	if err != nil {
		return 0, fmt.Errorf("free space: %w", err)
	}
	return free, nil
}
