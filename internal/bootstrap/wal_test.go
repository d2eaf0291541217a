package bootstrap_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"etcd.example/snapshot/internal/bootstrap"
)

// bootState is what etcdutl puts into WAL and .snap, made from etcd's types.
type bootState struct {
	metadata []byte
	entries  []*raftpb.Entry
	hard     *raftpb.HardState
	conf     *raftpb.ConfState
}

func (l layout) bootState(t *testing.T) bootState {
	t.Helper()
	return bootStateOf(t, l.etcds(t), l.name)
}

func bootStateOf(t *testing.T, rc *membership.RaftCluster, name string) bootState {
	t.Helper()
	var s bootState
	var err error
	s.metadata, err = proto.Marshal(&etcdserverpb.Metadata{
		NodeID:    proto.Uint64(uint64(rc.MemberByName(name).ID)),
		ClusterID: proto.Uint64(uint64(rc.ID())),
	})
	require.NoError(t, err)
	s.conf = &raftpb.ConfState{}
	for _, id := range rc.MemberIDs() {
		member, err := json.Marshal(rc.Member(id))
		require.NoError(t, err)
		change, err := proto.Marshal(&raftpb.ConfChange{
			Type:    raftpb.ConfChangeAddNode.Enum(),
			NodeId:  proto.Uint64(uint64(id)),
			Context: member,
		})
		require.NoError(t, err)
		s.conf.Voters = append(s.conf.Voters, uint64(id))
		s.entries = append(s.entries, &raftpb.Entry{
			Type:  raftpb.EntryConfChange.Enum(),
			Term:  proto.Uint64(1),
			Index: proto.Uint64(uint64(len(s.conf.Voters))),
			Data:  change,
		})
	}
	s.hard = &raftpb.HardState{
		Term:   proto.Uint64(1),
		Vote:   proto.Uint64(s.conf.Voters[0]),
		Commit: proto.Uint64(uint64(len(s.entries))),
	}
	return s
}

func (s bootState) snapshot() *walpb.Snapshot {
	return &walpb.Snapshot{Index: s.hard.Commit, Term: s.hard.Term, ConfState: s.conf}
}

func (s bootState) raftSnapshot(store []byte) *raftpb.Snapshot {
	return &raftpb.Snapshot{
		Data:     store,
		Metadata: &raftpb.SnapshotMetadata{Index: s.hard.Commit, Term: s.hard.Term, ConfState: s.conf},
	}
}

// etcdWAL returns the directory of a WAL that etcd wrote.
func etcdWAL(t *testing.T, s bootState) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "wal")
	w, err := wal.Create(zap.NewNop(), dir, s.metadata)
	require.NoError(t, err)
	require.NoError(t, w.Save(s.hard, s.entries))
	require.NoError(t, w.SaveSnapshot(s.snapshot()))
	require.NoError(t, w.Close())
	return dir
}

func TestWALIsEtcds(t *testing.T) {
	eachLayout(t, func(t *testing.T, l layout) {
		var ours bytes.Buffer
		require.NoError(t, l.ours(t).WriteWAL(&ours))

		dir := etcdWAL(t, l.bootState(t))
		f, err := os.Open(filepath.Join(dir, bootstrap.WALName))
		require.NoError(t, err)
		defer func() { require.NoError(t, f.Close()) }()
		theirs := make([]byte, ours.Len())
		_, err = io.ReadFull(f, theirs)
		require.NoError(t, err)
		require.Equal(t, theirs, ours.Bytes())

		// A length field of zero is the end of the log.
		end := make([]byte, 8)
		_, err = io.ReadFull(f, end)
		require.NoError(t, err)
		require.Zero(t, bytes.Trim(end, "\x00"))
		fi, err := f.Stat()
		require.NoError(t, err)
		require.EqualValues(t, bootstrap.SegmentSize, fi.Size())
	})
}

func TestSegmentIsEtcds(t *testing.T) {
	require.EqualValues(t, wal.SegmentSizeBytes, bootstrap.SegmentSize)
}

func TestEtcdReadsWAL(t *testing.T) {
	eachLayout(t, func(t *testing.T, l layout) {
		dir := t.TempDir()
		f, err := os.OpenFile(filepath.Join(dir, bootstrap.WALName), os.O_CREATE|os.O_WRONLY, 0o600)
		require.NoError(t, err)
		require.NoError(t, l.ours(t).WriteWAL(f))
		require.NoError(t, f.Truncate(bootstrap.SegmentSize))
		require.NoError(t, f.Close())
		want := l.bootState(t)

		w, err := wal.Open(zap.NewNop(), dir, &walpb.Snapshot{Index: proto.Uint64(0), Term: proto.Uint64(0)})
		require.NoError(t, err)
		metadata, hard, entries, err := w.ReadAll()
		require.NoError(t, err)
		require.NoError(t, w.Close())
		require.Equal(t, want.metadata, metadata)
		require.True(t, proto.Equal(want.hard, hard), "got %v, want %v", hard, want.hard)
		require.Len(t, entries, len(want.entries))
		for i := range entries {
			require.True(t, proto.Equal(want.entries[i], entries[i]), "entry %d: got %v, want %v", i, entries[i], want.entries[i])
		}

		hard, err = wal.Verify(zap.NewNop(), dir, want.snapshot())
		require.NoError(t, err)
		require.True(t, proto.Equal(want.hard, hard))
		snaps, err := wal.ValidSnapshotEntries(zap.NewNop(), dir)
		require.NoError(t, err)
		require.Len(t, snaps, 2)
		require.True(t, proto.Equal(want.snapshot(), snaps[1]), "got %v, want %v", snaps[1], want.snapshot())
	})
}

// failingWriter fails from write number left on.
type failingWriter struct{ left int }

var errDisk = errors.New("disk on fire")

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.left--; w.left < 0 {
		return 0, errDisk
	}
	return len(p), nil
}

func TestWriteWALReportsEachWrite(t *testing.T) {
	c := layouts[2].ours(t)
	const records = 3 + 3 + 2 // head, one a member, hard state and snapshot
	for n := range records {
		w := &failingWriter{left: n}
		err := c.WriteWAL(w)
		require.ErrorIs(t, err, errDisk, "write %d", n)
		require.Equal(t, -1, w.left, "nothing is written after the error")
	}
	w := &failingWriter{left: records}
	require.NoError(t, c.WriteWAL(w))
	require.Zero(t, w.left)
}
