// Package bootstrap turns a list of members into everything that the members
// of a new etcd cluster have to agree on before their first start: member and
// cluster ids, the first WAL segment, the .snap file and the records of the
// database. It opens no file and reads no clock; the same input always gives
// the same bytes.
package bootstrap

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// firstTerm is the raft term in which a new cluster's members are added.
const firstTerm = 1

// Cluster is a new cluster, seen from one of its members. It is immutable and
// safe for concurrent use.
type Cluster struct {
	id      types.ID
	local   types.ID
	members []*membership.Member // by id
	records [][]byte             // members as JSON, as WAL and database hold them
}

// New returns the cluster of the given members, seen from the one called name.
// The ids follow from peer URLs and token alone, by etcd's own functions, so
// that all members compute the same. It is an error if name is not among the
// members, or if two of them get the same id.
func New(name, token string, members types.URLsMap) (*Cluster, error) {
	if _, ok := members[name]; !ok {
		return nil, fmt.Errorf("no member is called %q", name)
	}
	named := make(map[types.ID]string, len(members))
	for _, n := range slices.Sorted(maps.Keys(members)) {
		id := membership.NewMember(n, members[n], token, nil).ID
		if other, ok := named[id]; ok {
			return nil, fmt.Errorf("members %q and %q have the same id %s", other, n, id)
		}
		named[id] = n
	}
	rc, err := membership.NewClusterFromURLsMap(zap.NewNop(), token, members)
	if err != nil {
		return nil, err
	}
	c := &Cluster{id: rc.ID(), members: rc.Members()}
	for _, m := range c.members {
		if m.Name == name {
			c.local = m.ID
		}
		record, err := json.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("encode member %q: %w", m.Name, err)
		}
		c.records = append(c.records, record)
	}
	return c, nil
}

// ClusterID returns the id of the cluster.
func (c *Cluster) ClusterID() types.ID { return c.id }

// LocalID returns the id of the member that the cluster is seen from.
func (c *Cluster) LocalID() types.ID { return c.local }

// Members returns copies of all members, by ascending id.
func (c *Cluster) Members() []*membership.Member {
	ms := make([]*membership.Member, len(c.members))
	for i, m := range c.members {
		ms[i] = m.Clone()
	}
	return ms
}

// Term returns the raft term of the bootstrap entries, hard state and snapshot.
func (c *Cluster) Term() uint64 { return firstTerm }

// Index returns the raft index of the last bootstrap entry: one entry a member.
func (c *Cluster) Index() uint64 { return uint64(len(c.members)) }

func (c *Cluster) metadata() *etcdserverpb.Metadata {
	return &etcdserverpb.Metadata{
		NodeID:    proto.Uint64(uint64(c.local)),
		ClusterID: proto.Uint64(uint64(c.id)),
	}
}

// confChange returns the change that adds the member at position i.
func (c *Cluster) confChange(i int) *raftpb.ConfChange {
	return &raftpb.ConfChange{
		Type:    raftpb.ConfChangeAddNode.Enum(),
		NodeId:  proto.Uint64(uint64(c.members[i].ID)),
		Context: c.records[i],
	}
}

// hardState says that all entries are committed, and votes for the member with
// the lowest id as etcdutl does; the first election is not bound by it, since
// it happens in a later term.
func (c *Cluster) hardState() *raftpb.HardState {
	return &raftpb.HardState{
		Term:   proto.Uint64(c.Term()),
		Vote:   proto.Uint64(uint64(c.members[0].ID)),
		Commit: proto.Uint64(c.Index()),
	}
}

func (c *Cluster) confState() *raftpb.ConfState {
	voters := make([]uint64, len(c.members))
	for i, m := range c.members {
		voters[i] = uint64(m.ID)
	}
	return &raftpb.ConfState{Voters: voters}
}
