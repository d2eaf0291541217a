package snaptest

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"go.etcd.io/etcd/api/v3/authpb"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/lease/leasepb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Raw sets one entry of a bucket, and creates the bucket if there is none. It checks
// nothing: a malformed revision key in "key" is written unchanged.
func (db *DB) Raw(bucket, key, value string) *DB {
	db.bucket(bucket).pairs[key] = []byte(value)
	return db
}

// Remove removes an entry that Raw or a similar method has set.
func (db *DB) Remove(bucket, key string) *DB {
	delete(db.bucket(bucket).pairs, key)
	return db
}

// Bucket sets entries of a bucket.
func (db *DB) Bucket(name string, pairs map[string]string) *DB {
	db.EmptyBucket(name)
	for k, v := range pairs {
		db.Raw(name, k, v)
	}
	return db
}

// EmptyBucket creates a bucket if there is none.
func (db *DB) EmptyBucket(name string) *DB {
	db.bucket(name)
	return db
}

// DropBucket removes a bucket, even one of [Buckets]; "key" includes all keys.
func (db *DB) DropBucket(name string) *DB {
	if name == "key" {
		db.records = nil
	}
	delete(db.buckets, name)
	return db
}

// NestedBucket sets entries of a bucket within buckets, which etcd never has. The
// names are in order from the outermost to the innermost.
func (db *DB) NestedBucket(pairs map[string]string, names ...string) *DB {
	n := db.bucket(names[0])
	for _, name := range names[1:] {
		if n.subs[name] == nil {
			n.subs[name] = newNode()
		}
		n = n.subs[name]
	}
	for k, v := range pairs {
		n.pairs[k] = []byte(v)
	}
	return db
}

func (db *DB) bucket(name string) *node {
	if db.buckets[name] == nil {
		db.buckets[name] = newNode()
	}
	return db.buckets[name]
}

// ConsistentIndex sets the raft index of the last applied entry.
func (db *DB) ConsistentIndex(i uint64) *DB { return db.Raw("meta", "consistent_index", be64(i)) }

// Term sets the raft term of the last applied entry.
func (db *DB) Term(t uint64) *DB { return db.Raw("meta", "term", be64(t)) }

// ConfState sets the voters.
func (db *DB) ConfState(voters ...uint64) *DB {
	return db.Raw("meta", "confState", string(mustJSON(&raftpb.ConfState{Voters: voters})))
}

// StorageVersion sets the storage version, for example "3.6.0". The empty string
// removes it, as before etcd 3.6.
func (db *DB) StorageVersion(v string) *DB {
	if v == "" {
		return db.Remove("meta", "storageVersion")
	}
	return db.Raw("meta", "storageVersion", v)
}

// Member sets a member of the cluster.
func (db *DB) Member(id uint64, name, peerURL string) *DB {
	return db.Raw("members", fmt.Sprintf("%x", id), string(mustJSON(map[string]any{
		"id": id, "name": name, "peerURLs": []string{peerURL},
	})))
}

// RemovedMember sets the tombstone of a member.
func (db *DB) RemovedMember(id uint64) *DB {
	return db.Remove("members", fmt.Sprintf("%x", id)).
		Raw("members_removed", fmt.Sprintf("%x", id), "removed")
}

// Lease sets a lease with a time to live in seconds.
func (db *DB) Lease(id, ttl int64) *DB {
	return db.LeaseCheckpoint(id, ttl, 0)
}

// LeaseCheckpoint sets a lease of which the leader has recorded the remaining time, in
// seconds.
func (db *DB) LeaseCheckpoint(id, ttl, remaining int64) *DB {
	return db.Raw("lease", be64(uint64(id)), mustProto(&leasepb.Lease{ID: id, TTL: ttl, RemainingTTL: remaining}))
}

// Alarm raises an alarm.
func (db *DB) Alarm(member uint64, alarm etcdserverpb.AlarmType) *DB {
	return db.Raw("alarm", mustProto(&etcdserverpb.AlarmMember{MemberID: member, Alarm: alarm}), "")
}

// Password is the password of every user that AuthUser creates.
const Password = "secret"

// passwordHash is bcrypt of Password at the lowest cost.
const passwordHash = "$2a$04$Ynp9KMTFs9qxOo8kZL0oX.opxIq6JOD6ldx1ew5b3V5hYQirPzt4."

// AuthUser creates a user with the password [Password].
func (db *DB) AuthUser(name string, roles ...string) *DB {
	return db.Raw("authUsers", name, mustProto(&authpb.User{
		Name: []byte(name), Password: []byte(passwordHash), Roles: roles,
		Options: &authpb.UserAddOptions{},
	}))
}

// AuthRole creates a role that may read and write the keys from key up to rangeEnd,
// exclusive.
func (db *DB) AuthRole(name, key, rangeEnd string) *DB {
	return db.Raw("authRoles", name, mustProto(&authpb.Role{
		Name: []byte(name),
		KeyPermission: []*authpb.Permission{{
			PermType: authpb.READWRITE, Key: []byte(key), RangeEnd: []byte(rangeEnd),
		}},
	}))
}

// AuthEnable turns authentication on. It needs a user root with a role root.
func (db *DB) AuthEnable(revision uint64) *DB {
	return db.Raw("auth", "authEnabled", "\x01").Raw("auth", "authRevision", be64(revision))
}

func be64(v uint64) string { return string(binary.BigEndian.AppendUint64(nil, v)) }

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func mustProto(m proto.Message) string {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(b)
}
