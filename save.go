package snapshot

import (
	"context"
	"io"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/fetch"
)

// Saved says what SaveTo wrote.
type Saved struct {
	Size    int64         // bytes written, trailer included
	SHA256  [32]byte      // digest of the database, as in the trailer
	Version string        // storage version that the server named, empty before etcd 3.6
	Took    time.Duration // from dialling to the last byte
}

// Save fetches a snapshot from the one member that cfg.Endpoints names and
// writes it to dbPath. The file is the point-in-time state of that member,
// which may be a follower or a learner and then lag behind the leader.
//
// On nil, dbPath is the complete snapshot with its SHA-256 trailer, readable
// and writable by its owner alone. Its digest was compared while it streamed;
// the file and the directory entry are on disk. An existing file at dbPath
// is replaced in one step: on any error, and if the process is killed, it is
// left unchanged. On error nothing else is left either; what a killed process
// leaves beside dbPath, the next Save to it removes. A symbolic link at dbPath is
// followed, its target replaced. Concurrent calls, also for one dbPath, each
// publish a whole file; the last one to end wins.
//
// An error is an [*Error]. [ErrEndpoints] comes before anything is dialled.
// [ErrUnreachable] means that no connection came about within the time of
// [WithConnectTimeout], with the last reason. A refused, reset or failed attempt is
// repeated until then. It is not repeated where Save, with the TLS of cfg,
// refuses the certificate of the server or the server that of Save, or where the
// server does not speak TLS. [ErrStalled] means that a server that was connected
// sent no byte for the time of [WithStallTimeout]. Where a login takes longer
// than the DialTimeout of cfg, the error is one of these two, and
// [context.DeadlineExceeded] too.
//
// [ErrTruncated] means that the stream ended before the number of bytes that the
// server announced; [ErrNoTrailer] that it ended right there, without the digest;
// [ErrChecksum] that the digest differs; [ErrCorrupt] that what the server
// announced or sent cannot be a snapshot, such as a malformed message. What the
// server refuses, it refuses as it would with etcd's client: errors of package
// rpctypes and gRPC status codes are found with [errors.Is] and status.Code.
//
// When ctx ends before the file is published, nothing more is written, nothing is
// published, and the error matches [context.Canceled] or
// [context.DeadlineExceeded], and the cause of ctx if it has one. That holds for
// bytes that have been received already, and for a ctx that ends during a progress
// report.
//
// On Linux a large snapshot does not push other files, such as the database of
// an etcd on the same machine, out of the page cache: but for its last 16 MiB,
// the file is not left there. overlayfs cannot write back part of a file, so
// there the file stays cached.
//
// cfg means what it means to [clientv3.New], and is not modified. Windows and
// message sizes that it sets are kept; where it sets none, Save has windows
// large enough for a distant member. It repeats attempts to connect after 50 ms
// to 1 s unless DialOptions say otherwise. Interceptors for streams in DialOptions
// get messages of the snapshot in a type of this package, which is no
// proto.Message. With a dialer or transport credentials in DialOptions,
// ErrUnreachable has the reason in the words of gRPC alone, and comes when the
// connect timeout is over.
//
// Save logs, and the client does, to cfg.Logger, or if that is nil to the
// manager's logger: LogConfig is ignored. So is AutoSyncInterval, which could
// lead to another member.
func (m *V3Manager) Save(ctx context.Context, cfg clientv3.Config, dbPath string) (err error) {
	defer wrap("save", dbPath, &err)
	_, err = m.fetch().ToFile(ctx, cfg, dbPath)
	return err
}

// SaveTo streams a snapshot from the one member that cfg.Endpoints names to w,
// without a temporary file. ctx, cfg and the errors are those of
// [V3Manager.Save].
//
// On nil, w has received the complete snapshot with its SHA-256 trailer, whose
// digest has matched; nothing was synced or closed. On error, w has received
// some part of its beginning, possibly nothing: the end of the database, at least
// 512 bytes of it, and the trailer are written in one last Write, after the digest
// has matched. The caller must throw away what w holds: truncate it, delete the
// object, abort the upload. Should it be kept by mistake, it is refused. Verify
// and Restore answer [ErrNoTrailer]; Status, and Restore with SkipHashCheck, answer
// [ErrCorrupt] with [ErrTruncated], because the database lacks its end. The one
// exception is a w whose last Write failed after it had taken the whole database.
//
// Calls of w.Write come from the calling goroutine, in blocks of up to 1 MiB, the
// last one of up to 32 bytes more. As [io.Writer] has it, w must not change or
// keep them. An error of w ends the stream at once and is found with [errors.Is];
// a Write that takes too little without saying why is [io.ErrShortWrite]. The time
// that w takes is not counted against the server. SaveTo cannot interrupt a Write:
// when ctx ends, it returns after the Write that is under way, and calls w no more.
func (m *V3Manager) SaveTo(ctx context.Context, cfg clientv3.Config, w io.Writer) (_ Saved, err error) {
	defer wrap("save", "", &err)
	saved, err := m.fetch().ToWriter(ctx, cfg, w)
	return Saved(saved), err
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
