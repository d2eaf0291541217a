package query

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/keyspace"
	"etcd.example/snapshot/internal/schema"
)

// Info is what a database holds besides its keys.
type Info struct {
	ClusterVersion string
	Members        []Member // by id
	Leases         []Lease  // by id
	Alarms         []Alarm
	AuthEnabled    bool
	Users, Roles   []string

	room int64 // bytes of the records that were taken, without those of leases
}

// maxInfo bounds the records that Info takes, in bytes. Those of an etcd have some
// hundred bytes for each member, user and role. Leases count as little as keys.
const maxInfo = 16 << 20

func (i *Info) reserve(n int) error {
	if i.room += int64(n); i.room > maxInfo {
		return fmt.Errorf("%w: more than %d MiB of members, alarms, users and roles", fault.ErrCorrupt, maxInfo>>20)
	}
	return nil
}

// Member is a member of the cluster.
type Member struct {
	ID         uint64
	Name       string
	PeerURLs   []string
	ClientURLs []string
	IsLearner  bool
}

// Lease is a lease, with the number of keys that are attached to it.
type Lease struct {
	ID           int64
	TTL          int64 // seconds, as granted
	RemainingTTL int64 // seconds, 0 if the server has not recorded it
	Keys         int
}

// Alarm is an alarm that a member has raised.
type Alarm struct {
	MemberID uint64
	Type     string
}

// info reads the small buckets, and counts the keys of the leases.
func (db *Database) info(ctx context.Context) (*Info, error) {
	i := &Info{}
	for _, part := range []struct {
		bucket string
		add    func(key, value []byte) error
	}{
		{schema.BucketMembers, i.addMember},
		{schema.BucketLease, i.addLease},
		{schema.BucketAlarm, i.addAlarm},
		{schema.BucketAuthUsers, i.addName(&i.Users)},
		{schema.BucketAuthRoles, i.addName(&i.Roles)},
	} {
		if err := db.bucket(ctx, part.bucket, part.add); err != nil {
			return nil, fmt.Errorf("bucket %q: %w", part.bucket, err)
		}
	}
	version, err := db.record(ctx, schema.BucketCluster, schema.ClusterVersion)
	if err != nil {
		return nil, err
	}
	i.ClusterVersion = string(version)
	enabled, err := db.record(ctx, schema.BucketAuth, schema.AuthEnabled)
	if err != nil {
		return nil, err
	}
	i.AuthEnabled = len(enabled) == 1 && enabled[0] == 1
	slices.SortFunc(i.Members, func(a, b Member) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return i, db.countLeases(ctx, i.Leases)
}

// addMember takes a record of bucket "members": the id in hexadecimal digits, and
// the member as JSON.
func (i *Info) addMember(key, value []byte) error {
	if err := i.reserve(len(key) + len(value)); err != nil {
		return err
	}
	id, err := strconv.ParseUint(string(key), 16, 64)
	if err != nil {
		return fmt.Errorf("%w: member %q: %w", fault.ErrCorrupt, key[:min(len(key), 32)], err)
	}
	var m struct {
		Name       string   `json:"name"`
		PeerURLs   []string `json:"peerURLs"`
		ClientURLs []string `json:"clientURLs"`
		IsLearner  bool     `json:"isLearner"`
	}
	if err := json.Unmarshal(value, &m); err != nil {
		return fmt.Errorf("%w: member %x: %w", fault.ErrCorrupt, id, err)
	}
	i.Members = append(i.Members, Member{id, m.Name, m.PeerURLs, m.ClientURLs, m.IsLearner})
	return nil
}

// The fields of etcd's leasepb.Lease, by number.
const (
	leaseTTL          = 2
	leaseRemainingTTL = 3
)

// addLease takes a record of bucket "lease": the id in 8 bytes, big endian, and a
// leasepb.Lease.
func (i *Info) addLease(key, value []byte) error {
	if len(key) != 8 {
		return fmt.Errorf("%w: lease id of %d bytes", fault.ErrCorrupt, len(key))
	}
	l := Lease{ID: int64(binary.BigEndian.Uint64(key))}
	for rest := value; len(rest) > 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return fmt.Errorf("%w: lease %x: %w", fault.ErrCorrupt, l.ID, protowire.ParseError(n))
		}
		size := protowire.ConsumeFieldValue(number, kind, rest[n:])
		if size < 0 {
			return fmt.Errorf("%w: lease %x: %w", fault.ErrCorrupt, l.ID, protowire.ParseError(size))
		}
		if kind == protowire.VarintType {
			v, _ := protowire.ConsumeVarint(rest[n:])
			switch number {
			case leaseTTL:
				l.TTL = int64(v)
			case leaseRemainingTTL:
				l.RemainingTTL = int64(v)
			}
		}
		rest = rest[n+size:]
	}
	i.Leases = append(i.Leases, l)
	return nil
}

// addAlarm takes a record of bucket "alarm": an AlarmMember as its key.
func (i *Info) addAlarm(key, _ []byte) error {
	if err := i.reserve(len(key)); err != nil {
		return err
	}
	var a pb.AlarmMember
	if err := proto.Unmarshal(key, &a); err != nil {
		return fmt.Errorf("%w: alarm: %w", fault.ErrCorrupt, err)
	}
	i.Alarms = append(i.Alarms, Alarm{a.MemberID, a.Alarm.String()})
	return nil
}

// addName takes the key of a record.
func (i *Info) addName(to *[]string) func(key, _ []byte) error {
	return func(key, _ []byte) error {
		*to = append(*to, string(key))
		return i.reserve(len(key))
	}
}

// countLeases counts the live keys of each lease, in one pass over the pieces that
// have records of leases.
func (db *Database) countLeases(ctx context.Context, leases []Lease) error {
	if len(leases) == 0 || db.records == nil {
		return nil
	}
	byID := make(map[int64]*Lease, len(leases))
	for i := range leases {
		byID[leases[i].ID] = &leases[i]
	}
	var mu sync.Mutex
	pass := boltfile.Options{Visit: func(_ boltfile.Bucket, piece int) boltfile.Visitor {
		of := make(map[keyspace.Fingerprint]int64) // the latest lease of a key
		return &entries{
			each: func(e *entry) error {
				key := db.Index.Fingerprint(e.Key)
				if e.Lease == 0 && of[key] == 0 {
					return nil
				}
				if p, alive := db.Index.Piece(key); alive && p == piece {
					of[key] = e.Lease
				}
				return nil
			},
			done: func() error {
				mu.Lock()
				defer mu.Unlock()
				for _, id := range of {
					if l := byID[id]; l != nil {
						l.Keys++
					}
				}
				return nil
			},
		}
	}}
	var leased []int
	for i, p := range db.Pieces {
		if p.Leased {
			leased = append(leased, i)
		}
	}
	return db.records.Visit(ctx, leased, pass)
}
