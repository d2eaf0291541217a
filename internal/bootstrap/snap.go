package bootstrap

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"path"

	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap/snappb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// The namespaces of etcd's v2 store: cluster state, and the keys of v2 clients.
const (
	v2ClusterPrefix = "/0"
	v2KeysPrefix    = "/1"
)

// Snap returns the raft snapshot that the first WAL segment ends with: the name
// of its file in member/snap, and the content.
func (c *Cluster) Snap() (name string, content []byte, err error) {
	store, err := c.v2Store()
	if err != nil {
		return "", nil, fmt.Errorf("encode membership: %w", err)
	}
	opts := proto.MarshalOptions{Deterministic: true}
	data, err := opts.Marshal(&raftpb.Snapshot{
		Data: store,
		Metadata: &raftpb.SnapshotMetadata{
			ConfState: c.confState(),
			Index:     proto.Uint64(c.Index()),
			Term:      proto.Uint64(c.Term()),
		},
	})
	if err != nil {
		return "", nil, fmt.Errorf("encode raft snapshot: %w", err)
	}
	content, err = opts.Marshal(&snappb.Snapshot{
		Crc:  proto.Uint32(crc32.Checksum(data, castagnoli)),
		Data: data,
	})
	if err != nil {
		return "", nil, fmt.Errorf("encode snapshot file: %w", err)
	}
	return fmt.Sprintf("%016x-%016x.snap", c.Term(), c.Index()), content, nil
}

// v2Store returns the membership as a saved v2 store, which etcd 3.4 and 3.5
// take it from. etcd fills the store in the order of a map; here members come
// by id, so that their indexes in the store are always the same.
func (c *Cluster) v2Store() ([]byte, error) {
	store := v2store.New(v2ClusterPrefix, v2KeysPrefix)
	// etcd looks for members before it adds any, and the miss is counted in the
	// statistics that are saved along.
	membership.MembersFromStore(zap.NewNop(), store)
	for _, m := range c.members {
		attrs, err := json.Marshal(m.RaftAttributes)
		if err != nil {
			return nil, err
		}
		key := path.Join(membership.MemberStoreKey(m.ID), "raftAttributes")
		permanent := v2store.TTLOptionSet{ExpireTime: v2store.Permanent}
		if _, err := store.Create(key, false, string(attrs), false, permanent); err != nil {
			return nil, err
		}
	}
	return store.SaveNoCopy()
}
