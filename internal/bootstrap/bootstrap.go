// Package bootstrap computes from a list of members everything that the members
// of a new etcd cluster have to agree on before their first start: member and
// cluster ids, the first WAL segment, the .snap file and the records of the
// database. It opens no file and reads no clock; the same input always gives
// the same bytes.
package bootstrap

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"go.etcd.io/etcd/client/pkg/v3/types"
)

// firstTerm is the raft term in which a new cluster's members are added.
const firstTerm = 1

// noMember is the id with which raft means no member.
const noMember types.ID = 0

// Cluster is a new cluster, seen from one of its members. It is immutable and
// safe for concurrent use.
type Cluster struct {
	id      types.ID
	local   types.ID
	members []Member // by id
	records [][]byte // members as JSON, as WAL and database hold them
}

// New returns the cluster of the given members, seen from the member called name.
// The ids depend only on peer URLs and token, as in etcd, so all members compute
// the same. It is an error if name is not among the members, or if two of them get
// the same id.
func New(name, token string, members types.URLsMap) (*Cluster, error) {
	if _, ok := members[name]; !ok {
		return nil, fmt.Errorf("no member has the name %q", name)
	}
	c := &Cluster{}
	for n, urls := range members {
		m := Member{Name: n, raftAttributes: raftAttributes{PeerURLs: urls.StringSlice()}}
		m.ID = memberID(m.PeerURLs, token)
		if m.ID == noMember {
			return nil, fmt.Errorf("member %q gets the id 0, which raft reserves: change its peer URLs or the token", n)
		}
		if n == name {
			c.local = m.ID
		}
		c.members = append(c.members, m)
	}
	slices.SortFunc(c.members, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Name, b.Name))
	})
	for i, m := range c.members {
		if i > 0 && c.members[i-1].ID == m.ID {
			return nil, fmt.Errorf("members %q and %q have the same id %s", c.members[i-1].Name, m.Name, m.ID)
		}
		record, err := json.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("encode member %q: %w", m.Name, err)
		}
		c.records = append(c.records, record)
	}
	c.id = clusterID(c.members)
	return c, nil
}

// ClusterID returns the id of the cluster.
func (c *Cluster) ClusterID() types.ID { return c.id }

// LocalID returns the id of the member that the cluster is seen from.
func (c *Cluster) LocalID() types.ID { return c.local }

// Members returns copies of all members, by ascending id.
func (c *Cluster) Members() []Member {
	ms := slices.Clone(c.members)
	for i := range ms {
		ms[i].PeerURLs = slices.Clone(ms[i].PeerURLs)
	}
	return ms
}

// Term returns the raft term of the bootstrap entries, hard state and snapshot.
func (c *Cluster) Term() uint64 { return firstTerm }

// Index returns the raft index of the last bootstrap entry: one entry a member.
func (c *Cluster) Index() uint64 { return uint64(len(c.members)) }
