package bootstrap_test

import (
	"os"
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
		for _, m := range ours.Members() {
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

		rc, s := l.etcds(t), l.bootState(t)
		dir := t.TempDir()
		require.NoError(t, snap.New(zap.NewNop(), dir).SaveSnap(&raftpb.Snapshot{
			Data:     orderedV2Store(t, rc),
			Metadata: &raftpb.SnapshotMetadata{Index: s.hard.Commit, Term: s.hard.Term, ConfState: s.conf},
		}))
		theirs, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, string(theirs), string(ours))
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
