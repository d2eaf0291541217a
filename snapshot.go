// Package snapshot saves snapshots of live etcd v3 members, verifies them, looks
// inside them, and restores them to data directories that etcd boots from.
//
//   - [V3Manager.Save] and [V3Manager.SaveFile] save a snapshot of one member to a
//     file, [V3Manager.SaveFrom] does so with an existing client, and
//     [V3Manager.SaveTo] saves to an [io.Writer]. They compare its checksum while it
//     streams. All but Save return what they [Saved].
//   - [V3Manager.Status] and [V3Manager.StatusContext] report the [Status] of a
//     file: hash, revision, keys, size, version.
//   - [V3Manager.Verify] proves a file. Call it before you rely on a backup.
//     [V3Manager.VerifyFrom] compares the checksum of a stream.
//   - [V3Manager.Match] compares a file with what the members of a cluster hold.
//   - [V3Manager.Open] returns a [Reader] that looks inside a file: etcd's own
//     client API, ranges, each [Record] with its [Revision], the [HashKV] of
//     members, and an [Info] with its [Member], [Lease], [Alarm] and [Bucket]
//     lists. [Diff] yields each [Change] between two snapshots, or between two
//     revisions of one, each given as an [At].
//   - [V3Manager.Restore], [V3Manager.RestoreContext] and [V3Manager.RestoreFrom]
//     create a data directory from a file or from an [io.Reader]. A
//     [RestoreConfig] names the member and the cluster.
//
// [New] returns a [V3Manager]. Each [Option] changes one thing: [WithLogger],
// [WithProgress] with its [Progress] and [Phase], [WithConnectTimeout] and
// [WithStallTimeout]. [NewV3] returns the [Manager] that etcd documents. Both are
// safe for concurrent use.
//
// Every error is an [*Error]. Match the sentinels with [errors.Is]:
//
//   - [ErrEndpoints] and [ErrConfig]: the call itself is wrong.
//   - [ErrUnreachable] and [ErrStalled]: the server does not connect, or stops
//     sending.
//   - [ErrTruncated], [ErrNoTrailer], [ErrChecksum] and [ErrCorrupt]: the snapshot
//     is damaged or incomplete.
//   - [ErrByteOrder]: the snapshot comes from a machine of the other byte order.
//   - [ErrExists] and [ErrInUse]: the target exists, or the target or the file is
//     in use.
//   - [ErrCompacted] and [ErrFuture]: the revision is no longer there, or not yet.
//   - [ErrMismatch]: the snapshot differs from the cluster.
//   - [ErrReadOnly]: a snapshot was asked to change.
//
// # Restoring a cluster
//
//  1. Stop all clients that cache what etcd holds, such as Kubernetes API
//     servers. Then stop all members of the old cluster.
//  2. Verify the snapshot. Restore all members from the same one.
//  3. On each host, call Restore with the same InitialCluster and
//     InitialClusterToken, and with that host's own Name and PeerURLs. Choose
//     a token that no running cluster has: the peer URLs and the token of the
//     original cluster give the original ids.
//  4. If clients keep caches or watches, set RevisionBump and MarkCompacted, the
//     same on each host, so that revisions do not go backwards: see
//     [RestoreConfig].
//  5. Start etcd on each host with that name, that data directory, its
//     --listen-peer-urls and, if the WAL directory is separate, --wal-dir.
//  6. When the members are healthy, start the clients again.
//
// If a Restore fails or is killed, make the same call again. The README has the
// commands and a figure for RevisionBump.
//
// # Guarantees
//
// Each guarantee has tests that fail when it is broken.
//
// Save:
//
//   - On nil, the complete snapshot is at its path and on disk, and its checksum
//     was compared.
//   - On error or kill, the path is as it was: an existing file is left unchanged.
//   - Concurrent Saves never mix, even to one path.
//
// Restore:
//
//   - On nil, the data directory is complete and on disk.
//   - On error, nothing is left.
//   - After a kill or a power cut, the member directory is complete or absent.
//   - The same call, made again, removes what a killed call left. It spares what a
//     running call uses.
//   - No byte is trusted unchecked: the checksum of the copy and the structure of
//     every page in use are checked before the copy is edited.
//   - Files have permissions 0600 and new directories 0700, whatever the umask,
//     where the file system keeps permissions.
//   - Two names of one directory, such as two spellings, count as one.
//
// Any file and any server:
//
//   - None makes this package panic, hang, or use memory without bound.
//   - [ErrCorrupt] names the page or the record of a file, or what the file is
//     instead of a snapshot.
//   - [ErrChecksum] shows both checksums.
//
// Every call with a context:
//
//   - You can cancel it.
//   - If the context ended before the call, the call does nothing.
//   - Once the context has ended, nothing more is written and nothing is
//     published.
//
// Waiting:
//
//   - A file that a running etcd holds is [ErrInUse] at once.
//   - A server that cannot be reached for the connect timeout is [ErrUnreachable].
//   - A server that sends no byte for the stall timeout is [ErrStalled].
//
// Memory:
//
//   - It is a fixed number of buffers, a bit or two for each page, and some hundred
//     bytes for each branch page.
//   - Status, Verify and a [Reader] add a fingerprint for each live key, however
//     long the key is: at most 32 bytes a key while a Reader is open. A Reader
//     keeps up to 32 MiB of the keys of the range that was read last.
//   - No file is read into memory as a whole, and none is mapped. Databases of any
//     size work on 32-bit platforms.
//
// Import:
//
//   - It registers nothing and sets nothing, in this package or in others.
//
// # Limits
//
// Checks:
//
//   - Status does not compare the checksum. Restore does not with SkipHashCheck.
//   - Both check the structure. A flipped bit within a value leaves it intact.
//   - Restore does not decode records. With a checksum they are those that the
//     server sent, good or not.
//   - To check the records of a file without a trailer, call Status, which decodes
//     them. With a trailer, call Verify, which also compares them with their
//     revisions.
//   - The checksum is no signature: whoever can change the file can change it.
//   - Snapshots are not encrypted. Keys, values and password hashes are in them as
//     they were.
//
// Save:
//
//   - It gives the state of its one member. A follower or a learner may lag behind
//     the leader.
//   - Where a file system has no hard links, and the disk fails while Save syncs
//     the directory, the new file stays at the path. The error says so.
//   - A call that opens a file at the very moment at which a Save publishes it may
//     return [ErrInUse] once.
//
// Restore:
//
//   - Restored members vote. Add learners to the running cluster.
//   - Restore does not know which etcd will boot the directory. A server may
//     refuse data that is newer than itself: see Versions.
//   - With AllowEmptyDataDir, Restore checks at the beginning that the directory is
//     empty. It keeps what others put there later.
//   - If others create a member directory there, the call ends with [ErrExists].
//   - After a kill, a separate WAL directory may be there without its data
//     directory, and hidden files or directories beside either. The next call for
//     the same target removes them.
//
// Contexts:
//
//   - SaveTo cannot interrupt a Write and RestoreFrom cannot interrupt a Read. When
//     the context ends, they return after the one that is under way.
//   - The methods of [Manager] without a context cannot be cancelled.
//
// Platforms:
//
//   - Where the file system, the kernel or a sandbox refuses flock, the leftovers
//     of a killed Save stay.
//   - There, Restore returns [ErrInUse] after a kill, with the path for you to
//     remove.
//   - A database has the byte order of the machine that wrote it. Save works on
//     either order.
//   - Status, Verify and Restore return [ErrByteOrder] on a machine of the other
//     order: use one of the same order.
//   - Databases of more than 2^30 pages are [ErrCorrupt]. That is 4 TiB with pages
//     of 4 KiB.
//   - Windows has no call that syncs a directory. After a power cut the name of a
//     new file is as durable as NTFS makes it.
//   - The tests run on Linux. For macOS and Windows the code is compiled and vetted.
//
// Compatibility:
//
//   - Texts of errors and log messages may change. Sentinels and types do not.
//
// # What survives a restore
//
// Verified against real servers of every minor version, and in detail against an
// embedded one:
//
//   - Keys keep their values, leases, versions and revisions. The compacted
//     revision stays as it was.
//   - Leases start anew, with the time that they were granted. If the server has
//     persisted the remaining time of a lease, which etcd's LeaseCheckpoint
//     features do, the lease goes on with that.
//   - Users, roles and passwords stay as they were. If authentication was on, it is
//     on.
//   - Members have the names and URLs of the restore.
//   - The cluster id and the member ids follow from the peer URLs and the token.
//     They are new unless both are the original ones.
//   - Alarms stay, under the id of the member that raised them.
//   - NOSPACE refuses puts and new leases. CORRUPT refuses all writes, compactions,
//     and granting and revoking leases. Neither refuses reads.
//   - "etcdctl alarm disarm" or DropAlarms removes alarms. After NOSPACE, raise the
//     quota or free space, or the alarm is raised again.
//   - 3.4 and 3.5 decide the cluster version anew. Later servers take it from the
//     file and raise it to their own.
//
// # Versions
//
//   - Servers of etcd 3.4, 3.5, 3.6, 3.7 and 3.8.0-alpha.0 boot their own restored
//     snapshots in the tests, as one member and as three.
//   - A server also boots what an older one saved.
//   - 3.6 and 3.7 refuse what a newer server saved.
//   - 3.4 and 3.5 accept it, but leave its storage version in the file. A later
//     upgrade may be refused for that.
//
// The README has the table.
//
// # Formats
//
// A snapshot is the bbolt database of one member at one moment, followed by its
// SHA-256 checksum of 32 bytes, called the trailer. A database is a whole number
// of 512-byte sectors, so a file has a trailer if and only if its size is 32 more
// than a multiple of 512. A db file copied out of a data directory has none:
// Status reads it, Verify returns [ErrNoTrailer], and Restore needs SkipHashCheck.
//
// The fields of a [Status]:
//
//   - Hash is the CRC-32C over each bucket in key order: its name, then the key
//     and the value of each entry. It covers membership, leases and users, so a
//     restored database has another Hash than its snapshot. It is the hash of
//     "etcdutl snapshot status", not the HashKV of a server.
//   - Revision is the main revision of the last record of the key space.
//   - TotalKey is the number of live keys: those whose last record is not a
//     tombstone.
//   - TotalSize is the size of the database in bytes up to its high-water mark,
//     with free pages, without the trailer.
//   - Version is the storage version in the file, empty before etcd 3.6.
//
// A restored data directory of a cluster of n members holds
//
//	member/snap/db                the database, with the new membership
//	member/snap/<1>-<n>.snap      the membership as a raft snapshot
//	member/wal/<0>-<0>.wal        ids, one entry a member, hard state
//
// with numbers of 16 hexadecimal digits. Restore computes ids from InitialCluster
// and InitialClusterToken as etcd does, so members that are restored apart agree
// on them. The same snapshot and [RestoreConfig] give the same bytes, on one
// platform.
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
	// Save saves a snapshot of the one etcd member in cfg.Endpoints to dbPath. See
	// [V3Manager.Save].
	Save(ctx context.Context, cfg clientv3.Config, dbPath string) error

	// Status reports what the snapshot at dbPath holds. See [V3Manager.Status].
	Status(dbPath string) (Status, error)

	// Restore creates an etcd data directory from a snapshot file. See
	// [V3Manager.Restore].
	Restore(cfg RestoreConfig) error
}

// NewV3 returns a Manager for v3 snapshots that logs to lg. With a nil lg it does
// not log.
func NewV3(lg *zap.Logger) Manager {
	return New(WithLogger(lg))
}

// Sentinel errors for use with [errors.Is]. Other errors (a missing file, a refused
// permission, a cancelled context, a gRPC status) keep their identity: match them
// the same way.
var (
	// ErrEndpoints: the Config of a Save has no endpoint, an empty one, or more
	// than one.
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
	// ErrNoTrailer: the SHA-256 checksum at the end of every streamed snapshot is
	// missing. A db file copied out of a data directory has none.
	ErrNoTrailer = fault.ErrNoTrailer
	// ErrChecksum: the checksum of the bytes differs from the one in the trailer.
	ErrChecksum = fault.ErrChecksum
	// ErrCorrupt: the bytes are not a well-formed etcd database. The message names
	// the page or the record, and the reason. For a file that is not a database it
	// says what the file is.
	ErrCorrupt = fault.ErrCorrupt
	// ErrExists: the target of a restore already exists.
	ErrExists = fault.ErrExists
	// ErrByteOrder: the snapshot comes from a machine of the other byte order.
	// (etcd runs on one big-endian platform, s390x.) The file is not damaged:
	// read and restore it on a machine of its own byte order.
	ErrByteOrder = fault.ErrByteOrder
	// ErrInUse: this process or another has locked the file or the target: a
	// running etcd, or a Save or a restore that still runs.
	ErrInUse = fault.ErrInUse
	// ErrConfig: the RestoreConfig contradicts itself or cannot be carried out.
	ErrConfig = fault.ErrConfig
	// ErrReadOnly: a call would have written to a snapshot. A snapshot is never
	// written to.
	ErrReadOnly = fault.ErrReadOnly
	// ErrMismatch: the key space of the snapshot differs from that of a member. The
	// message names the endpoints that differ, with both hashes.
	ErrMismatch = fault.ErrMismatch
	// ErrCompacted: the revision is not in the snapshot, or no longer in the cluster,
	// because it has been compacted. It also matches rpctypes.ErrCompacted.
	ErrCompacted = fault.ErrCompacted
	// ErrFuture: the snapshot or the member has not reached the revision. It also
	// matches rpctypes.ErrFutureRev.
	ErrFuture = fault.ErrFuture
)

// Error is the type of every error that this package returns. Op is the call
// ("save", "status", "verify", "restore", "open"). Path is the snapshot file of the call,
// empty if there is none. Err is the cause, with its path if that is another file;
// [errors.Is] and [errors.As] match it.
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
