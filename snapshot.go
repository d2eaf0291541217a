// Package snapshot fetches snapshots from live etcd v3 members, says what is in
// a snapshot file, and turns it back into a data directory that etcd boots from.
//
//   - [V3Manager.Save] and [V3Manager.SaveTo] fetch a snapshot from one member, to
//     a file or to an [io.Writer], and check its digest as it streams.
//   - [V3Manager.Status] says what is in a file: revision, keys, size, version.
//   - [V3Manager.Verify] proves a file. Call it before you rely on a backup.
//   - [V3Manager.Restore], [V3Manager.RestoreContext] and [V3Manager.RestoreFrom]
//     make a data directory from a file or from an [io.Reader].
//
// [New] returns a [V3Manager], [NewV3] the [Manager] that etcd documents. Either
// is safe for concurrent use. Errors are of type [*Error], and match
// sentinels such as [ErrChecksum] with [errors.Is].
//
// # Restoring a cluster
//
//  1. Verify the snapshot. All members are restored from the same one.
//  2. On each host call Restore with the same InitialCluster and
//     InitialClusterToken, and with that host's own Name and PeerURLs. Choose
//     a token that no running cluster has: with the peer URLs and the token of
//     the original cluster, the ids are the original ones too.
//  3. Where clients keep caches or watches, set RevisionBump and
//     MarkCompacted, so that revisions do not go backwards: see [RestoreConfig].
//  4. Start etcd with that name, data directory and, if it is separate, WAL
//     directory.
//
// A Restore that failed or was killed can simply be called again.
//
// # Format
//
// A snapshot is the bbolt database of one member at one moment, followed by the
// SHA-256 of it, 32 bytes called the trailer. A database is a whole number of
// 512-byte sectors, so a file has a trailer if and only if its size is 32 more
// than a multiple of 512. A db file copied out of a data directory has none:
// Status reads it, Verify answers [ErrNoTrailer], and Restore wants
// SkipHashCheck.
//
// Of a [Status],
//
//   - Hash is the CRC-32C over each bucket in key order: its name, then the key
//     and the value of each entry. Membership, leases and users count, so a
//     restored database has another Hash than its snapshot. It is the hash of
//     "etcdutl snapshot status", not the HashKV of a server.
//   - Revision is the main revision of the last record of the key space.
//   - TotalKey is the number of live keys: those whose last record is not a
//     tombstone.
//   - TotalSize is the size of the database in bytes up to its high-water mark,
//     free pages included, the trailer not.
//   - Version is the storage version in the file, empty before etcd 3.6.
//
// A restored data directory holds, for a cluster of n members,
//
//	member/snap/db                the database, with the new membership
//	member/snap/<1>-<n>.snap      the membership as a raft snapshot
//	member/wal/<0>-<0>.wal        ids, one entry a member, hard state
//
// with numbers of 16 hexadecimal digits. Ids are computed from InitialCluster
// and InitialClusterToken as etcd does it, which is why members restored apart
// agree on them. The same snapshot and [RestoreConfig] give the same bytes, on
// one platform.
//
// # Guarantees
//
// Each has tests that fail when it is broken.
//
//  1. When Save returns nil, the complete snapshot is at its path and on disk,
//     its digest checked. After an error or a kill the path is as it was
//     before. Concurrent Saves never mix, even to one path.
//  2. When Restore returns nil, the data directory is complete and on disk.
//     Files have permissions 0600 and new directories 0700, whatever the umask,
//     where the file system keeps permissions.
//     After an error nothing is left; after a kill or a power cut there is the
//     complete member directory or none. The same call made again removes
//     what a killed one left, and spares what a running one uses. Two names
//     of one directory, such as two spellings, count as one.
//  3. Restore trusts no byte unchecked: it checks the digest of its copy and the
//     structure of every page in use, and only then edits it.
//  4. No file and no server makes this package panic or hang, or use memory
//     without bound. [ErrCorrupt] names the page or the record of a file, or what
//     the file is instead of a snapshot; [ErrChecksum] shows both checksums.
//  5. Every call with a context can be cancelled. If the context has ended
//     before the call, the call does nothing; once it has ended, nothing more
//     is written and nothing is published. A file that a running etcd holds
//     is [ErrInUse] at once. A server that cannot be reached for the connect
//     timeout is [ErrUnreachable], one that sends no byte for the stall timeout
//     is [ErrStalled].
//  6. Memory is a fixed number of buffers, a bit or two for each page and some
//     hundred bytes for each branch page, and in Status and Verify a
//     fingerprint for each live key, however long the key is. No file is
//     read into memory as a whole, and none is mapped.
//  7. The import registers nothing and sets nothing, in this package or in
//     others.
//
// # Not promised
//
//   - Status does not compare the digest, and Restore does not with
//     SkipHashCheck. Both check the structure, which a flipped bit within a
//     value leaves intact. Restore does not look into records at all: with a
//     digest they are those that the server sent, good or not, and without one
//     only Status or, with a trailer, Verify can tell.
//   - The digest is no signature: who can change the file can change the
//     digest. Snapshots are not encrypted either: keys, values and password
//     hashes are in them as they were.
//   - Save gives the state of its one member, and a follower or a learner
//     may lag behind the leader.
//   - SaveTo cannot interrupt a Write and RestoreFrom cannot interrupt a Read:
//     when the context ends they return after the one that is under way. The
//     methods of [Manager] without a context cannot be cancelled.
//   - Restore makes voting members. Learners are added to the running cluster.
//   - Restore does not know which etcd will boot the directory. A server may
//     refuse data that is newer than itself: see Versions.
//   - With AllowEmptyDataDir, Restore looks at the beginning whether the
//     directory is empty. What others put there meanwhile stays; only a member
//     directory of theirs ends the call, with [ErrExists].
//   - After a kill, a separate WAL directory may be there without its data
//     directory, and hidden files or directories beside either. The next
//     call for the same target removes them. Where flock is refused
//     by the file system, the kernel or a sandbox, those of a Save stay, and
//     Restore answers [ErrInUse] with the path to remove by hand.
//   - Where a file system has no hard links, and the disk fails while Save syncs
//     the directory, the new file stays at the path. The error says so.
//   - A call that opens a file at the very moment at which a Save publishes it
//     may answer [ErrInUse] once.
//   - A database has the byte order of the machine that wrote it. Save fetches
//     one of the other order; Status, Verify and Restore refuse it with
//     [ErrByteOrder]: use a machine of that order.
//   - Databases of more than 2^30 pages, 4 TiB where pages have 4 KiB, are
//     refused as [ErrCorrupt].
//   - Windows has no call that syncs a directory: after a power cut the name of
//     a new file is as durable as NTFS makes it. The tests run on Linux; for
//     macOS and Windows the code is compiled and vetted.
//   - Texts of errors and log messages may change. Sentinels and types do not.
//
// # What survives a restore
//
// Verified against real servers of every minor version, and in detail against an
// embedded one:
//
//   - Keys with their values, leases, versions and revisions are as they
//     were, and so is the compacted revision.
//   - Leases start anew, with the time that they were granted. A lease whose
//     remaining time the server has persisted, which etcd's LeaseCheckpoint
//     features do, goes on with that.
//   - Users, roles and passwords are as they were. If authentication was on, it
//     is on.
//   - Members have the names and URLs of the restore. The cluster id and the
//     member ids follow from its peer URLs and its token, so they are new unless
//     both are the original ones.
//   - Alarms stay, under the id of the member that raised them. NOSPACE refuses
//     puts and new leases; CORRUPT refuses all writes, compactions, and granting
//     and revoking leases. Neither refuses reads. "etcdctl alarm disarm" or
//     DropAlarms removes them. After NOSPACE, raise the quota or free space, or
//     the alarm is raised again.
//   - The cluster version is decided anew by 3.4 and 3.5. Later servers take it
//     from the file and raise it to their own.
//
// # Versions
//
// Snapshots of etcd 3.4, 3.5, 3.6, 3.7 and 3.8.0-alpha.0 are saved, verified,
// restored and booted by their own servers in the tests, as one member and
// as three. A server also boots what an older one saved. The other way, 3.6 and
// 3.7 refuse what a newer server saved. 3.4 and 3.5 take it, but leave its
// storage version in the file, for which a later upgrade may be refused. The
// README has the table.
package snapshot

import (
	"context"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"etcd.example/snapshot/internal/fault"
)

// Manager defines the snapshot methods. [V3Manager] implements it for the v3
// storage of etcd 3.4 and later.
type Manager interface {
	// Save fetches a snapshot from the one etcd member in cfg.Endpoints and
	// writes it to dbPath. See [V3Manager.Save].
	Save(ctx context.Context, cfg clientv3.Config, dbPath string) error

	// Status says what is in the snapshot at dbPath. See [V3Manager.Status].
	Status(dbPath string) (Status, error)

	// Restore makes a new etcd data directory from a snapshot file. See
	// [V3Manager.Restore].
	Restore(cfg RestoreConfig) error
}

// NewV3 returns a Manager for v3 snapshots that logs to lg. A nil lg is silent.
func NewV3(lg *zap.Logger) Manager {
	return New(WithLogger(lg))
}

// Sentinel errors for use with [errors.Is]. Errors that are none of these (a
// missing file, a refused permission, a cancelled context, a gRPC status) keep
// their own identity and are found the same way.
var (
	// ErrEndpoints: Save was given no endpoint or more than one.
	ErrEndpoints = fault.ErrEndpoints
	// ErrUnreachable: Save could not connect to the server within the connect
	// timeout, or one side refuses the certificate of the other, or the server
	// does not speak TLS. The message has the last reason.
	ErrUnreachable = fault.ErrUnreachable
	// ErrStalled: the server, once connected, sent no snapshot bytes for the
	// stall timeout.
	ErrStalled = fault.ErrStalled
	// ErrTruncated: a stream or a file ended before its announced end.
	ErrTruncated = fault.ErrTruncated
	// ErrNoTrailer: the SHA-256 digest that ends every streamed snapshot is
	// missing, as it is in a db file copied out of a data directory.
	ErrNoTrailer = fault.ErrNoTrailer
	// ErrChecksum: the digest of the bytes differs from the one in the trailer.
	ErrChecksum = fault.ErrChecksum
	// ErrCorrupt: the bytes are not a well-formed etcd database. The message
	// names the page, or the record, and the reason; for a file that is no
	// database at all it says what the file is instead.
	ErrCorrupt = fault.ErrCorrupt
	// ErrExists: the target of a restore already exists.
	ErrExists = fault.ErrExists
	// ErrByteOrder: the snapshot comes from a machine of the other byte order.
	// (etcd runs on one big-endian platform, s390x.) The file is not damaged:
	// read and restore it on a machine of its own byte order.
	ErrByteOrder = fault.ErrByteOrder
	// ErrInUse: the file or the target is locked, in this process or another: by
	// a running etcd, or by a restore that is still at work.
	ErrInUse = fault.ErrInUse
	// ErrConfig: the RestoreConfig contradicts itself or cannot be carried out.
	ErrConfig = fault.ErrConfig
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
