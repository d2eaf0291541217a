package snapshot

import (
	"context"
	"io"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/rebuild"
)

// Restore creates an etcd data directory from a snapshot file. See
// [V3Manager.RestoreContext].
func (m *V3Manager) Restore(cfg RestoreConfig) error {
	return m.RestoreContext(context.Background(), cfg)
}

// RestoreContext creates an etcd data directory, and the WAL directory, from the
// snapshot file cfg.SnapshotPath, for the member cfg.Name of a new cluster. Members
// restored with the same InitialCluster and InitialClusterToken agree on all ids
// and form one cluster. RestoreContext never writes to the snapshot file.
//
// A restore either completes or leaves nothing. On nil, every file and directory is
// on disk, including the parent directories that it created. Directories that it
// creates have permissions 0700, files 0600. An existing data directory keeps its
// own. On any error nothing is left. After a kill or a power cut, the member
// directory is complete or absent. The same call, made again, removes what the
// killed one left; only on a file system without locks you do (see the limits
// above). Of concurrent calls for one directory, in this process or in others, one
// wins. The others return [ErrExists] or [ErrInUse].
//
// RestoreContext verifies bytes before it trusts them. It compares the checksum of
// the copy with the trailer and checks the structure of the copy. Only then does it
// edit the copy, in one transaction. It never maps the file, so a 32-bit process
// restores databases of any size.
//
// Errors:
//   - [ErrConfig], before anything is written. The one exception is a file system
//     that treats two names as one: that shows when their directories are created.
//   - [ErrExists] if the data directory exists (see AllowEmptyDataDir) or the WAL
//     directory does.
//   - [ErrNoTrailer] and [ErrChecksum], unless SkipHashCheck is set.
//   - [ErrCorrupt], with [ErrTruncated] if the file ends too early.
//   - [ErrByteOrder], before anything is written.
//   - [ErrInUse], also if a running etcd holds the snapshot file.
//   - syscall.ENOSPC, with the space that is needed and the space that is free,
//     even if the copy would be a reflink.
//   - The context's error.
//
// When its context ends, the call returns within 100 ms plus the time to remove the
// copy: about 0.06 s a GB on ext4, 0.02 s on XFS, and 0.3 s on an ext4 without a
// journal that discards free blocks. An overloaded disk or processor can make both
// longer, because nothing interrupts a single system call; 0.4 s were measured for
// one. Once a call has begun to publish the directory, it can no longer be
// cancelled. Nothing keeps running after the return.
//
// RestoreContext follows a symbolic link above the target. A link at the target
// itself is [ErrExists]; with AllowEmptyDataDir it is followed too.
func (m *V3Manager) RestoreContext(ctx context.Context, cfg RestoreConfig) (err error) {
	defer wrap("restore", cfg.SnapshotPath, &err)
	return m.rebuild().FromFile(ctx, rebuild.Config(cfg))
}

// RestoreFrom is [V3Manager.RestoreContext] for a snapshot that it reads from r to
// the end, without a second copy on disk. cfg.SnapshotPath must be empty. It checks
// the bytes as those of a file. A stream that ends early is [ErrTruncated] or, if
// its beginning does not show that, [ErrNoTrailer] or [ErrChecksum]. An error of r
// ends the restore; match it with [errors.Is]. A RevisionBump that does not fit is
// [ErrConfig], after r has been read. RestoreFrom cannot interrupt a Read: when ctx
// ends, it returns after the current Read. It reads r on the calling goroutine. 100
// Reads in a row without a byte or an error are [io.ErrNoProgress]. If r panics,
// RestoreFrom does too, and leaves nothing.
func (m *V3Manager) RestoreFrom(ctx context.Context, r io.Reader, cfg RestoreConfig) (err error) {
	defer wrap("restore", "", &err)
	return m.rebuild().FromReader(ctx, r, rebuild.Config(cfg))
}

func (m *V3Manager) rebuild() rebuild.Rebuild {
	m = m.withDefaults()
	return rebuild.Rebuild{FS: durable.OS, Logger: m.lg, Report: m.report("restore")}
}
