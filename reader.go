package snapshot

import (
	"context"
	"iter"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"etcd.example/snapshot/internal/query"
)

// Reader looks inside a snapshot file. It is safe for concurrent use. It never
// writes to the file, and it checks again each page that it reads.
//
// A Reader uses up to 32 bytes of memory for each live key, and up to 32 MiB for
// the keys of the range that was read last.
type Reader struct {
	path string
	db   *query.Database
}

// Open opens the snapshot file, or the copied db file, at dbPath for reading. It
// reads the pages in use once, on all processors, and checks the structure of the
// database as [V3Manager.StatusContext] does; it does not compare the checksum,
// which [V3Manager.Verify] does. If the snapshot has leases, it reads the key space
// once more, to count their keys.
//
// The file stays locked for reading until [Reader.Close], so no etcd can open it
// meanwhile. Errors are those of [V3Manager.StatusContext]; on error nothing stays
// open.
func (m *V3Manager) Open(ctx context.Context, dbPath string) (_ *Reader, err error) {
	defer wrap("open", dbPath, &err)
	db, err := query.Open(ctx, dbPath, m.report("open"))
	if err != nil {
		return nil, err
	}
	return &Reader{path: dbPath, db: db}, nil
}

// Close releases the file, its lock and the memory. Calls and iterations that are
// under way end normally, and the last one of them releases everything. Later calls
// return an error. Close can be called more than once.
func (r *Reader) Close() (err error) {
	defer wrap("close", r.path, &err)
	return r.db.Close()
}

// Info describes what is in a snapshot besides its keys.
type Info struct {
	// Status is that of [V3Manager.Status], but for Revision: it is the revision
	// of a server with this database, which is the compacted revision if the
	// records up to that have all been removed.
	Status
	// CompactRevision is the revision at which the key space is compacted, 0 if
	// it never was. Earlier revisions cannot be read.
	CompactRevision int64
	// ClusterVersion is the version that the members had agreed on, empty if
	// none is recorded.
	ClusterVersion string
	Members        []Member // by id
	Leases         []Lease  // by id
	// Alarms block writes in a cluster restored from this snapshot, unless the
	// restore drops them: see RestoreConfig.
	Alarms []Alarm
	// AuthEnabled: a restored cluster asks for a user and a password.
	AuthEnabled  bool
	Users, Roles []string
	Buckets      []Bucket // by name
	// InUse is the size of the pages in use in bytes. The rest of TotalSize is
	// free pages.
	InUse int64
	// ScheduledCompaction is the revision of a compaction that the server had
	// begun and not finished, else 0. A server finishes it when it boots.
	ScheduledCompaction int64
}

// Member is a member of the cluster that the snapshot was taken of.
type Member struct {
	ID         uint64
	Name       string
	PeerURLs   []string
	ClientURLs []string
	IsLearner  bool
}

// Lease is a lease in a snapshot.
type Lease struct {
	ID  clientv3.LeaseID
	TTL int64 // seconds, as granted
	// RemainingTTL is what is left of it in seconds, 0 if the server has not
	// recorded that. etcd's LeaseCheckpoint features do.
	RemainingTTL int64
	Keys         int // live keys that are attached to it
}

// Alarm is an alarm that a member had raised.
type Alarm struct {
	MemberID uint64
	Type     string // "NOSPACE" or "CORRUPT"
}

// Bucket is a bucket of the database.
type Bucket struct {
	Name    string
	Entries int64
	Bytes   int64 // of keys and values
}

// Info returns what Open has found in the snapshot. It reads nothing.
func (r *Reader) Info() Info {
	db := r.db
	info := Info{
		Status:          Status(db.Status),
		CompactRevision: db.Compacted,
		ClusterVersion:  db.Info.ClusterVersion,
		AuthEnabled:     db.Info.AuthEnabled,
		Users:           append([]string(nil), db.Info.Users...),
		Roles:           append([]string(nil), db.Info.Roles...),
		InUse:           db.InUse,
	}
	info.Revision = db.Current
	if db.Scheduled > db.Finished {
		info.ScheduledCompaction = db.Scheduled
	}
	for _, m := range db.Info.Members {
		info.Members = append(info.Members, Member(m))
	}
	for _, l := range db.Info.Leases {
		info.Leases = append(info.Leases, Lease{clientv3.LeaseID(l.ID), l.TTL, l.RemainingTTL, l.Keys})
	}
	for _, a := range db.Info.Alarms {
		info.Alarms = append(info.Alarms, Alarm(a))
	}
	for _, b := range db.Buckets {
		info.Buckets = append(info.Buckets, Bucket{b.Name, b.Entries, b.Bytes})
	}
	return info
}

// KV returns etcd's own client API over the snapshot: it answers as the member
// would have at its moment, with every option that Get has, with GetStream, and with
// a Txn that only reads. Header has the Revision alone.
//
// Put, Delete, Compact, and a Txn with a write in either branch are [ErrReadOnly].
// A revision that has been compacted is [ErrCompacted], one that is yet to come
// [ErrFuture]; both match etcd's own errors of package rpctypes too. Other errors
// are those of [V3Manager.StatusContext], because the file may change while it is
// read. Errors are no *Error.
//
// A Get of one key at the latest revision reads some hundred pages. One of a range,
// or at an earlier revision, reads all records once; reading a range page by page
// with WithLimit does that for each 32 MiB of keys.
func (r *Reader) KV() clientv3.KV { return clientv3.NewKVFromKVClient(query.Client{DB: r.db}, nil) }

// Range yields the live keys from key on that opts name, in key order or in that of
// WithSort. It holds a few values at a time. To break off the loop is fine; the
// iterator can be used again. An error, an *Error with those of [Reader.KV], is
// yielded once, with a nil KeyValue, and ends the iteration.
func (r *Reader) Range(ctx context.Context, key string, opts ...clientv3.OpOption) iter.Seq2[*mvccpb.KeyValue, error] {
	req, err := rangeRequest(ctx, key, opts)
	if err != nil {
		return wrapped("range", r.path, failed[*mvccpb.KeyValue](err))
	}
	return wrapped("range", r.path, r.db.Range(ctx, req))
}

// Revision is the revision of one change: Main counts the transactions of the key
// space, Sub the changes within one, from 0.
type Revision struct{ Main, Sub int64 }

// Record is one change of a key, as etcd stores it.
type Record struct {
	Revision  Revision
	Tombstone bool // the key was deleted; KeyValue has nothing but the key
	KeyValue  *mvccpb.KeyValue
}

// Records yields every record with a main revision above after, in revision order,
// tombstones too. What a compaction has removed is missing. It ends and yields
// errors as [Reader.Range] does.
func (r *Reader) Records(ctx context.Context, after int64) iter.Seq2[Record, error] {
	return wrapped("records", r.path, func(yield func(Record, error) bool) {
		for rec, err := range r.db.Records(ctx, after) {
			if !yield(Record{Revision{rec.Revision.Main, rec.Revision.Sub}, rec.Revision.Tombstone, rec.KeyValue}, err) {
				return
			}
		}
	})
}

// HashKV is the hash of the key space that etcd's members compare.
type HashKV struct {
	Hash            uint32 `json:"hash"`
	Revision        int64  `json:"hashRevision"`
	CompactRevision int64  `json:"compactRevision"`
}

// HashKV returns what a member that has compacted at compactRevision answers to
// HashKV at revision. A revision of 0 is the latest one, a compactRevision of 0 that
// of the snapshot.
//
// The hash can be computed for each revision from the compact revision to the
// latest, and for each compact revision from that of the snapshot on. Others are
// [ErrCompacted] and [ErrFuture]. A member that is asked for the revision of one of
// its last compactions answers with the hash that it computed then, for the compact
// revision before: that is [ErrCompacted] if the snapshot was compacted later.
func (r *Reader) HashKV(ctx context.Context, revision, compactRevision int64) (_ HashKV, err error) {
	defer wrap("hashkv", r.path, &err)
	h, err := r.db.HashKV(ctx, revision, compactRevision)
	return HashKV(h), err
}

// At is the key space of a snapshot at a revision; 0 is the latest one.
type At struct {
	Reader   *Reader
	Revision int64
}

// Change is a key that differs between two key spaces. Before and After are nil
// where the key is not there.
type Change struct {
	Key           []byte
	Before, After *mvccpb.KeyValue
}

// Diff yields the keys that differ between from and to, two snapshots or two
// revisions of one, in key order. key and opts name the keys as for [Reader.Range];
// only WithPrefix, WithRange and WithFromKey count. It holds up to 32 MiB of keys for
// each side and reads only the values that it yields. Two records are equal if
// etcd stores the same bytes for them: a value that was written again differs.
func Diff(ctx context.Context, from, to At, key string, opts ...clientv3.OpOption) iter.Seq2[Change, error] {
	req, err := rangeRequest(ctx, key, opts)
	if err != nil {
		return wrapped("diff", from.Reader.path, failed[Change](err))
	}
	changes := query.Diff(ctx, query.At{DB: from.Reader.db, Revision: from.Revision},
		query.At{DB: to.Reader.db, Revision: to.Revision}, req)
	return wrapped("diff", from.Reader.path, func(yield func(Change, error) bool) {
		for c, err := range changes {
			if !yield(Change(c), err) {
				return
			}
		}
	})
}

// wrapped turns the error that an iterator yields into an *Error.
func wrapped[T any](op, path string, all iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for v, err := range all {
			wrap(op, path, &err)
			if !yield(v, err) {
				return
			}
		}
	}
}

// failed yields err alone.
func failed[T any](err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		yield(none, err)
	}
}

// rangeRequest is the request that etcd's client makes of options. It refuses an
// unknown order or target of a sort.
func rangeRequest(ctx context.Context, key string, opts []clientv3.OpOption) (*pb.RangeRequest, error) {
	var c requestCapture
	_, err := clientv3.NewKVFromKVClient(&c, nil).Do(ctx, clientv3.OpGet(key, opts...))
	return c.request, err
}

type requestCapture struct {
	pb.KVClient
	request *pb.RangeRequest
}

// Range implements [pb.KVClient].
func (c *requestCapture) Range(_ context.Context, req *pb.RangeRequest, _ ...grpc.CallOption) (*pb.RangeResponse, error) {
	c.request = req
	return &pb.RangeResponse{}, nil
}
