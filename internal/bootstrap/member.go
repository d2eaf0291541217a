package bootstrap

import (
	"crypto/sha1"
	"encoding/binary"
	"slices"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"
)

// Member is a voting member of a new cluster. Its JSON is the record that etcd
// stores for it, without the fields that a new member does not have.
type Member struct {
	ID types.ID `json:"id"`
	raftAttributes
	Name string `json:"name,omitempty"`
}

// raftAttributes is the part of a member that etcd's v2 store holds.
type raftAttributes struct {
	PeerURLs []string `json:"peerURLs"`
}

// memberID returns the id that etcd gives to a member with these peer URLs when
// it creates a cluster, as computeMemberID in etcd's server/etcdserver/api/membership does: members that
// are restored apart must agree on it. The order of the URLs does not matter.
func memberID(peerURLs []string, token string) types.ID {
	urls := strings.Join(slices.Sorted(slices.Values(peerURLs)), "")
	return hashID([]byte(urls + token))
}

// clusterID returns the id of the cluster of these members, which come by id.
func clusterID(members []Member) types.ID {
	var ids []byte
	for _, m := range members {
		ids = binary.BigEndian.AppendUint64(ids, uint64(m.ID))
	}
	return hashID(ids)
}

// hashID returns the first 8 bytes of the SHA-1 of data. It protects nothing:
// it is how etcd derives ids.
func hashID(data []byte) types.ID {
	sum := sha1.Sum(data)
	return types.ID(binary.BigEndian.Uint64(sum[:]))
}
