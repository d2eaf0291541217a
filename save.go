package snapshot

import (
	"context"
	"io"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/fetch"
	"etcd.example/snapshot/internal/inspect"
	"etcd.example/snapshot/internal/trailer"
)

// Saved describes a snapshot that was saved, or verified as a stream.
type Saved struct {
	// Size is the number of bytes of the snapshot, trailer included.
	Size int64
	// SHA256 is the checksum of the database: of all bytes but the last 32, which
	// are the trailer and hold it. It is not what sha256sum computes of the file,
	// which covers the trailer too.
	SHA256 [32]byte
	// Version is the storage version that the server named, empty before etcd 3.6.
	// Of VerifyFrom it is empty.
	Version string
	// Took is the time from dialing to the last byte; of SaveFrom and VerifyFrom,
	// from the call to the last byte.
	Took time.Duration
	// Revision is the latest revision of the key space, as in [Status]: the main
	// revision of the last record. SaveFile and SaveFrom read it in a few pages of
	// the file. It is 0 if the key space is empty, and if the database is damaged
	// although its checksum matches, because the server holds it like that: Verify
	// says what is wrong. Of SaveTo and VerifyFrom, which have no file, it is 0.
	Revision int64
}

// Save saves a snapshot of the one member in cfg.Endpoints to dbPath. The file
// holds the state of that member at one moment. A follower or a learner may lag
// behind the leader.
//
// On nil, dbPath is the complete snapshot with its SHA-256 trailer. Only its owner
// can read and write it. Save compared its checksum while it streamed, and the file
// and its directory entry are on disk. Save replaces an existing file at dbPath in
// one step. On error or kill, an existing file is left unchanged. On error nothing
// else is left either. The next Save to dbPath removes what a killed process left
// beside it. Save follows a symbolic link at dbPath and replaces its target.
// Concurrent calls, even to one dbPath, each publish a complete file. The last one
// to end wins.
//
// An error is an [*Error]. [ErrEndpoints] comes before Save dials. [ErrUnreachable]
// means that Save could not connect within the time of [WithConnectTimeout]; the
// message has the last reason. Until then Save repeats an attempt that was refused,
// reset or failed. It does not repeat one if, with the TLS of cfg, one side refuses
// the certificate of the other, or if the server does not speak TLS. [ErrStalled]
// means that the server, once connected, sent no byte for the time of
// [WithStallTimeout]. If a login takes longer than the DialTimeout of cfg, the
// error matches one of these two, and [context.DeadlineExceeded] too.
//
// [ErrTruncated] means that the stream ended before the number of bytes that the
// server announced. [ErrNoTrailer] means that it had all of them, but no checksum
// at the end. [ErrChecksum] means that the checksum differs. [ErrCorrupt] means
// that the announcement or the bytes cannot be a snapshot, such as a malformed
// message. If the server refuses the call, the error is that of etcd's client:
// match errors of package rpctypes with [errors.Is], and gRPC codes with
// status.Code.
//
// When ctx ends before Save publishes the file, Save writes nothing more, publishes
// nothing, and returns an error that matches [context.Canceled] or
// [context.DeadlineExceeded], and the cause of ctx if it has one. This includes
// bytes that have arrived already, and a ctx that ends during a progress report.
//
// On Linux a large snapshot does not push other files out of the page cache, such
// as the database of an etcd on the same machine: only its last 16 MiB stay there.
// overlayfs cannot write back part of a file, so there the file stays cached.
//
// cfg means what it means to [clientv3.New]. Save does not modify it. Save keeps
// HTTP/2 windows and message sizes that cfg sets. Otherwise its windows are large
// enough for a distant member. Save repeats attempts to connect after 50 ms to 1 s,
// unless DialOptions set something else. Stream interceptors in DialOptions get the
// messages of the snapshot in a type of this package, which is not a proto.Message.
// With a dialer or transport credentials in DialOptions, ErrUnreachable has only
// gRPC's reason, and comes when the connect timeout ends.
//
// Save and its client log to cfg.Logger or, if that is nil, to the manager's
// logger. Save ignores LogConfig, and AutoSyncInterval, which could lead to another
// member.
func (m *V3Manager) Save(ctx context.Context, cfg clientv3.Config, dbPath string) error {
	_, err := m.SaveFile(ctx, cfg, dbPath)
	return err
}

// SaveFile is [V3Manager.Save], and returns what it saved: size, checksum, version,
// revision and time. On error the Saved is zero.
//
// It reads the revision from the new file before it publishes it. A database that
// is damaged at the server, so that its checksum matches, is saved all the same,
// with Revision 0. An error of the disk on that read is an error of SaveFile.
func (m *V3Manager) SaveFile(ctx context.Context, cfg clientv3.Config, dbPath string) (_ Saved, err error) {
	defer wrap("save", dbPath, &err)
	saved, err := m.fetch().ToFile(ctx, cfg, dbPath)
	return Saved(saved), err
}

// SaveFrom is [V3Manager.SaveFile] with an existing client, over the connection and
// with the login that it has. It does not close cli and does not change its
// configuration. cli may be in use meanwhile, also for other SaveFroms. It must have
// exactly one endpoint, or the error is [ErrEndpoints], as for a nil cli and for one
// without a connection. Do not change the endpoints of cli during the call: no
// AutoSyncInterval, Sync or SetEndpoints.
//
// What is at dbPath after success, after an error and after a kill is what Save
// says, and so are the errors and ctx, with these differences:
//
//   - If cli is connected, the stall timeout starts with the call. Otherwise the
//     connect timeout does, and the stall timeout starts with the connection.
//   - cli connects as its own options say, with its own pauses between attempts:
//     gRPC's grow to two minutes. [ErrUnreachable] always comes when the connect
//     timeout ends, also after a refusal by TLS, with the last reason in the words
//     of gRPC.
//   - The HTTP/2 windows are those of cli. They cannot be made larger afterwards, so
//     a distant member may send more slowly than with Save.
//   - A message of more than 64 MiB is refused if cli has etcd's default limit.
//   - cli logs to its own logger. SaveFrom logs to that of the manager.
//   - If cli is closed during the call, the stream ends: an error with the gRPC code
//     Canceled, and [ErrTruncated] if the server had announced its bytes.
func (m *V3Manager) SaveFrom(ctx context.Context, cli *clientv3.Client, dbPath string) (_ Saved, err error) {
	defer wrap("save", dbPath, &err)
	saved, err := m.fetch().FromClient(ctx, cli, dbPath)
	return Saved(saved), err
}

// SaveTo streams a snapshot of the one member in cfg.Endpoints to w, without a
// temporary file. ctx, cfg and the errors are those of [V3Manager.Save].
//
// On nil, w has received the complete snapshot with its SHA-256 trailer, and the
// checksum has matched. SaveTo syncs and closes nothing. On error, w has received
// some part of the beginning, possibly nothing. SaveTo writes the end of the
// database, at least 512 bytes of it, and the trailer in one last Write, after the
// checksum has matched. After an error, remove what w holds: truncate it, delete
// the object, abort the upload. If you keep it by mistake, it is refused. Verify
// and Restore return [ErrNoTrailer]. Status, and Restore with SkipHashCheck, return
// [ErrCorrupt] with [ErrTruncated], because the database lacks its end. The one
// exception is a w whose last Write failed after it took the whole database.
//
// SaveTo calls w.Write on the calling goroutine, with blocks of up to 1 MiB; the
// last one may have up to 32 bytes more. As [io.Writer] requires, w must not change
// or keep them. An error of w ends the stream at once; match it with [errors.Is]. A
// Write that is short without an error is [io.ErrShortWrite]. The time that w takes
// does not count towards the stall timeout. SaveTo cannot interrupt a Write: when
// ctx ends, it returns after the current Write, and does not call w again.
func (m *V3Manager) SaveTo(ctx context.Context, cfg clientv3.Config, w io.Writer) (_ Saved, err error) {
	defer wrap("save", "", &err)
	saved, err := m.fetch().ToWriter(ctx, cfg, w)
	return Saved(saved), err
}

// VerifyFrom proves a snapshot that it reads from r to the end, without a file: an
// object in a store, or the reader of a compressed backup. It returns Size, SHA256
// and Took. Version and Revision stay empty, because a stream cannot be walked.
//
// On nil, the checksum matches, and the meta pages are those of a database that is
// not longer than the stream. The pages behind them are not checked: to check
// those, call Verify on a file. VerifyFrom writes nothing. On error the Saved is
// zero.
//
// Errors:
//   - [ErrCorrupt] if the stream is not a database, with what it is instead. After
//     the first MiB nothing more is read.
//   - [ErrNoTrailer], and [ErrTruncated] too if the stream ends before its database
//     does. [ErrTruncated] also if r returns [io.ErrUnexpectedEOF].
//   - [ErrChecksum] with both checksums.
//   - [ErrByteOrder], after the checksum has been compared: without [ErrChecksum]
//     it matches.
//   - An error of r, [io.ErrNoProgress] after 100 Reads in a row without a byte or
//     an error, and the error of ctx.
//
// VerifyFrom reads r on the calling goroutine and cannot interrupt a Read: when ctx
// ends, it returns after the current Read. If ctx has ended before the call, it
// reads nothing. If r panics, VerifyFrom does too, and leaves no goroutine. Memory
// is a few MiB, whatever the size. Calls may run at once, each with a reader of its
// own. Progress is "verify" in [PhaseRead], with a total of 0 until the end.
func (m *V3Manager) VerifyFrom(ctx context.Context, r io.Reader) (_ Saved, err error) {
	defer wrap("verify", "", &err)
	start := time.Now()
	digest, err := inspect.Stream(ctx, r, m.report("verify"))
	if err != nil {
		return Saved{}, err
	}
	return Saved{Size: digest.Size + trailer.Size, SHA256: digest.Sum, Took: time.Since(start)}, nil
}

func (m *V3Manager) fetch() fetch.Fetch {
	m = m.withDefaults()
	return fetch.Fetch{
		FS:             durable.OS,
		Logger:         m.lg,
		Report:         m.report("save"),
		ConnectTimeout: m.connectTimeout,
		StallTimeout:   m.stallTimeout,
	}
}
