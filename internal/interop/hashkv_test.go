package interop_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/interop/etcd"
)

// testHashed compares the snapshot with the server that it was taken of, which still
// has its revisions.
func testHashed(t *testing.T, r *etcd.Release, o *origin) {
	reader := open(t, o.plain)
	got, err := reader.HashKV(soon(t), 0, 0)
	require.NoError(t, err)
	require.Equal(t, snapshot.HashKV{
		Hash: o.contents.HashKV, Revision: o.contents.Revision, CompactRevision: o.contents.CompactRevision,
	}, got)
	sameHashes(t, r, reader, o.member)
}

// sameHashes compares HashKV of a snapshot with what m answers, at each revision that
// both have.
func sameHashes(t *testing.T, r *etcd.Release, reader *snapshot.Reader, m *etcd.Member) {
	t.Helper()
	ctx, cli, info := soon(t), dial(t, m), reader.Info()
	latest, err := cli.HashKV(ctx, m.ClientURL, 0)
	require.NoError(t, err)
	compacted := latest.CompactRevision
	require.GreaterOrEqual(t, compacted, info.CompactRevision)
	require.Less(t, compacted, info.Revision)
	for rev := compacted; rev <= info.Revision; rev++ {
		want, err := cli.HashKV(ctx, m.ClientURL, rev)
		if rev == compacted && r.Minor == "3.4" {
			require.ErrorIs(t, err, rpctypes.ErrCompacted)
			continue
		}
		require.NoError(t, err, "revision %d", rev)
		got, err := reader.HashKV(ctx, rev, want.CompactRevision)
		if rev == compacted && want.CompactRevision < info.CompactRevision {
			require.ErrorIs(t, err, snapshot.ErrCompacted, "the member has kept the hash of before the compaction")
			continue
		}
		require.NoError(t, err, "revision %d", rev)
		require.Equal(t, snapshot.HashKV{Hash: want.Hash, Revision: rev, CompactRevision: want.CompactRevision}, got)
	}
}

// open opens a snapshot, which is closed when the test ends.
func open(t *testing.T, path string) *snapshot.Reader {
	t.Helper()
	reader, err := lib.Open(soon(t), path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reader.Close()) })
	return reader
}
