package snapshot

import (
	"context"
	"io"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/rebuild"
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
	return m.rebuild().FromFile(ctx, rebuild.Config(cfg))
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
	return m.rebuild().FromReader(ctx, r, rebuild.Config(cfg))
}

func (m *V3Manager) rebuild() rebuild.Rebuild {
	m = m.withDefaults()
	return rebuild.Rebuild{FS: durable.OS, Logger: m.lg, Report: m.report("restore")}
}
