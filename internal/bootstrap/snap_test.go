package bootstrap_test

import (
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

func TestEtcdLoadsSnap(t *testing.T) {
	eachLayout(t, func(t *testing.T, l layout) {
		ours, want := l.ours(t), l.bootState(t)
		name, content, err := ours.Snap()
		require.NoError(t, err)
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))

		got, err := snap.New(zap.NewNop(), dir).Load()
		require.NoError(t, err)
		meta := &raftpb.SnapshotMetadata{Index: want.hard.Commit, Term: want.hard.Term, ConfState: want.conf}
		require.True(t, proto.Equal(meta, got.Metadata), "got %v, want %v", got.Metadata, meta)

		store := v2store.New(etcdserver.StoreClusterPrefix, etcdserver.StoreKeysPrefix)
		require.NoError(t, store.Recovery(got.Data))
		members, removed := membership.MembersFromStore(zap.NewNop(), store)
		require.Empty(t, removed)
		require.Len(t, members, len(ours.Members()))
		for _, m := range l.etcds(t).Members() {
			m.Name = "" // the v2 form has it only once the member has published it
			require.Equal(t, m, members[m.ID])
		}
		metaOnly, err := membership.IsMetaStoreOnly(store)
		require.NoError(t, err)
		require.True(t, metaOnly)
	})
}

// The file is the one that etcd writes, byte for byte, when etcd happens to go
// through its map of members by id.
func TestSnapIsEtcds(t *testing.T) {
	eachLayout(t, func(t *testing.T, l layout) {
		name, ours, err := l.ours(t).Snap()
		require.NoError(t, err)

		rc := l.etcds(t)
		theirs, err := os.ReadFile(filepath.Join(etcdSnap(t, orderedV2Store(t, rc), l.bootState(t)), name))
		require.NoError(t, err)
		require.Equal(t, string(theirs), string(ours))
	})
}

// etcdSnap returns the directory of a .snap file, with the saved v2 store, that
// etcd wrote.
func etcdSnap(t *testing.T, store []byte, s bootState) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, snap.New(zap.NewNop(), dir).SaveSnap(s.raftSnapshot(store)))
	return dir
}

// v2StoreByID has etcd's v2 store hold the membership as etcd does, but with
// the members in the order of their ids.
func v2StoreByID(t *testing.T, rc *membership.RaftCluster) []byte {
	t.Helper()
	store := v2store.New(etcdserver.StoreClusterPrefix, etcdserver.StoreKeysPrefix)
	membership.MembersFromStore(zap.NewNop(), store)
	for _, m := range rc.Members() {
		attrs, err := json.Marshal(m.RaftAttributes)
		require.NoError(t, err)
		key := path.Join(membership.MemberStoreKey(m.ID), "raftAttributes")
		_, err = store.Create(key, false, string(attrs), false, v2store.TTLOptionSet{ExpireTime: v2store.Permanent})
		require.NoError(t, err)
	}
	saved, err := store.SaveNoCopy()
	require.NoError(t, err)
	return saved
}

// etcd itself, where its order happens to be by id, has the same store.
func TestReferenceStoreIsEtcds(t *testing.T) {
	eachLayout(t, func(t *testing.T, l layout) {
		require.Equal(t, string(orderedV2Store(t, l.etcds(t))), string(v2StoreByID(t, l.etcds(t))))
	})
}

// orderedV2Store has etcd write the membership until it was written by id.
func orderedV2Store(t *testing.T, rc *membership.RaftCluster) []byte {
	t.Helper()
	const tries = 100_000 // there are 120 orders of 5 members
	for range tries {
		inOrder := membership.NewClusterFromMembers(zap.NewNop(), rc.ID(), rc.Members())
		data := etcdserver.GetMembershipInfoInV2Format(zap.NewNop(), inOrder)
		store := v2store.New()
		require.NoError(t, store.Recovery(data))
		var last uint64
		byID := true
		for _, m := range rc.Members() {
			e, err := store.Get(membership.MemberStoreKey(m.ID), false, false)
			require.NoError(t, err)
			byID = byID && e.Node.CreatedIndex > last
			last = e.Node.CreatedIndex
		}
		if byID {
			return data
		}
	}
	require.FailNow(t, "etcd's order of members was never by id")
	return nil
}

func TestSnapIsDeterministic(t *testing.T) {
	l := layouts[len(layouts)-1]
	name, want, err := l.ours(t).Snap()
	require.NoError(t, err)
	for range 20 {
		n, got, err := l.ours(t).Snap()
		require.NoError(t, err)
		require.Equal(t, name, n)
		require.Equal(t, want, got)
	}
}
