package snaptest

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// DB is a synthetic etcd database: a model of the buckets, which Write turns into a
// real bbolt file. It needs no server, and the same calls give the same bytes.
// Methods that change it return it, so that calls chain. It is not safe for
// concurrent use.
type DB struct {
	rev     int64    // current main revision, 1 at the start as in etcd
	sub     int64    // next sub revision within a Txn
	inTxn   bool     //
	records []record // of bucket "key", ascending
	state   map[string]keyState
	buckets map[string]*node // all others, and raw entries of "key"

	pageSize int
	freelist bool
	fragment bool
}

// Buckets are the names of the buckets that every etcd database has.
var Buckets = []string{
	"alarm", "auth", "authRoles", "authUsers", "cluster",
	"key", "lease", "members", "members_removed", "meta",
}

type record struct {
	main, sub int64
	tombstone bool
	bump      bool // an entry with an empty value, as a revision bump creates it
	key       string
	state     keyState
}

type keyState struct {
	create, version int64
	lease           int64
	value           string
	size            int // of the generated value of a Large key, which has no value here
}

type node struct {
	pairs map[string][]byte
	subs  map[string]*node
}

func newNode() *node {
	return &node{pairs: make(map[string][]byte), subs: make(map[string]*node)}
}

// NewDB returns the database of a member that has just been started: no keys,
// one member, version 3.7.
func NewDB() *DB {
	db := &DB{
		rev:      1,
		state:    make(map[string]keyState),
		buckets:  make(map[string]*node),
		pageSize: 4096,
	}
	for _, name := range Buckets {
		db.EmptyBucket(name)
	}
	const id = 0x8e9e05c52164694d
	return db.ConsistentIndex(4).Term(2).ConfState(id).StorageVersion("3.7.0").
		Raw("cluster", "clusterVersion", "3.7.0").
		Member(id, "default", "http://localhost:2380")
}

// Txn makes all changes of f one main revision with several sub revisions.
func (db *DB) Txn(f func()) *DB {
	db.begin()
	db.inTxn = true
	f()
	db.inTxn = false
	if db.sub == 0 {
		db.rev-- // nothing changed, so there is no revision
	}
	return db
}

func (db *DB) begin() {
	if !db.inTxn {
		db.rev++
		db.sub = 0
	}
}

func (db *DB) add(r record) {
	r.main, r.sub = db.rev, db.sub
	db.sub++
	db.records = append(db.records, r)
}

// Put sets a key.
func (db *DB) Put(key, value string) *DB { return db.PutLease(key, value, 0) }

// PutLease sets a key that is attached to a lease.
func (db *DB) PutLease(key, value string, lease int64) *DB {
	return db.put(key, keyState{value: value, lease: lease})
}

func (db *DB) put(key string, s keyState) *DB {
	db.begin()
	s.create, s.version = db.rev, 1
	if old, ok := db.state[key]; ok {
		s.create, s.version = old.create, old.version+1
	}
	db.state[key] = s
	db.add(record{key: key, state: s})
	return db
}

// Delete deletes a key. As in etcd, deleting a missing key creates no revision.
func (db *DB) Delete(key string) *DB {
	if _, ok := db.state[key]; !ok {
		return db
	}
	db.begin()
	delete(db.state, key)
	db.add(record{key: key, tombstone: true})
	return db
}

// Large puts n keys with generated values of valueSize bytes, one revision each.
// The values are not held in memory; a few million keys are practical.
func (db *DB) Large(n, valueSize int) *DB {
	db.records = slices.Grow(db.records, n)
	for range n {
		db.put(fmt.Sprintf("large/%012d", db.rev), keyState{size: valueSize})
	}
	return db
}

// Compact compacts at rev: it drops every record up to rev that is neither the
// last one of its key there nor a tombstone at rev itself.
func (db *DB) Compact(rev int64) *DB {
	db.drop(rev, len(db.records))
	return db.scheduled(rev).Raw("meta", "finishedCompactRev", string(revKey(rev, 0, false)))
}

// CompactPartially leaves a compaction at rev in its state after the first n
// removals: scheduled and not finished.
func (db *DB) CompactPartially(rev int64, n int) *DB {
	db.drop(rev, n)
	return db.scheduled(rev)
}

func (db *DB) scheduled(rev int64) *DB {
	return db.Raw("meta", "scheduledCompactRev", string(revKey(rev, 0, false)))
}

func (db *DB) drop(rev int64, n int) {
	last := make(map[string]int)
	for i, r := range db.records {
		if r.main <= rev {
			last[r.key] = i
		}
	}
	kept := db.records[:0]
	for i, r := range db.records {
		keep := r.main > rev || last[r.key] == i && (!r.tombstone || r.main == rev)
		if !keep && n > 0 {
			n--
			continue
		}
		kept = append(kept, r)
	}
	db.records = kept
}

// Bump raises the revision by n and marks it compacted, as a restore with
// RevisionBump and MarkCompacted does: an entry with an empty value, which
// reads as the empty key.
func (db *DB) Bump(n int64) *DB {
	db.rev = db.Revision() + n
	db.sub = 0
	db.add(record{bump: true})
	return db.scheduled(db.rev)
}

// Revision returns the main revision of the last record, which Status must report.
// It is 0 without records.
func (db *DB) Revision() int64 {
	if len(db.records) == 0 {
		return 0
	}
	return db.records[len(db.records)-1].main
}

// LiveKeys returns the number of keys whose last record is not a tombstone, which
// Status must report. The empty key of a Bump counts, as it does for etcd.
func (db *DB) LiveKeys() int {
	live := make(map[string]bool)
	for _, r := range db.records {
		if r.tombstone {
			delete(live, r.key)
		} else {
			live[r.key] = true
		}
	}
	return len(live)
}

// Records returns the number of entries of bucket "key" that the calls for keys
// created.
func (db *DB) Records() int { return len(db.records) }

// Live returns what a server must return for all keys, in key order.
func (db *DB) Live() []*mvccpb.KeyValue {
	last := make(map[string]record)
	for _, r := range db.records {
		if r.tombstone {
			delete(last, r.key)
		} else if !r.bump {
			last[r.key] = r
		}
	}
	kvs := make([]*mvccpb.KeyValue, 0, len(last))
	for _, key := range slices.Sorted(maps.Keys(last)) {
		kvs = append(kvs, last[key].keyValue())
	}
	return kvs
}

func (r record) keyValue() *mvccpb.KeyValue {
	if r.tombstone {
		return &mvccpb.KeyValue{Key: []byte(r.key)}
	}
	value := []byte(r.state.value)
	if r.state.size > 0 {
		value = madeUp(uint64(r.main), r.state.size)
	}
	return &mvccpb.KeyValue{
		Key: []byte(r.key), Value: value, Lease: r.state.lease,
		CreateRevision: r.state.create, ModRevision: r.main, Version: r.state.version,
	}
}

// entry returns the record as it is stored in bucket "key".
func (r record) entry() (key, value []byte, err error) {
	key = revKey(r.main, r.sub, r.tombstone)
	if r.bump {
		return key, nil, nil
	}
	value, err = proto.MarshalOptions{Deterministic: true}.Marshal(r.keyValue())
	return key, value, err
}

// revKey is a key of bucket "key".
func revKey(main, sub int64, tombstone bool) []byte {
	b := make([]byte, 0, 18)
	b = binary.BigEndian.AppendUint64(b, uint64(main))
	b = append(b, '_')
	b = binary.BigEndian.AppendUint64(b, uint64(sub))
	if tombstone {
		b = append(b, 't')
	}
	return b
}

// madeUp returns n incompressible bytes, the same ones for the same seed.
func madeUp(seed uint64, n int) []byte {
	var src rand.PCG
	src.Seed(seed, 0)
	b := make([]byte, 0, n+7)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, src.Uint64())
	}
	return b[:n]
}
