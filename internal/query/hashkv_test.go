package query_test

import (
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/snaptest"
)

// requireSameHash compares the hash at a revision with what the member answers, and
// reports whether the database can tell: it cannot if the member answers with the
// hash that it computed when it compacted, from what the database no longer has.
func (l *live) requireSameHash(t *testing.T, rev int64) bool {
	t.Helper()
	want, err := l.Client().HashKV(t.Context(), l.Endpoint(), rev)
	require.NoError(t, err, "revision %d", rev)
	got, err := l.db.HashKV(t.Context(), rev, want.CompactRevision)
	if max(want.CompactRevision, 0) < l.db.Compacted {
		require.ErrorIs(t, err, fault.ErrCompacted)
		return false
	}
	require.NoError(t, err, "revision %d", rev)
	require.Equal(t, want.Hash, got.Hash, "revision %d, compacted at %d", rev, want.CompactRevision)
	require.Equal(t, want.CompactRevision, got.CompactRevision)
	require.Equal(t, want.HashRevision, got.Revision)
	return true
}

func (l *live) testHashKV(t *testing.T) {
	for rev := l.db.Compacted; rev <= l.db.Current; rev++ {
		if rev > 0 && !l.requireSameHash(t, rev) {
			require.Equal(t, l.db.Compacted, rev, "the member has kept a hash")
		}
	}
	if l.db.Current > l.db.Compacted { // else the member may have kept a hash
		want, err := l.Client().HashKV(t.Context(), l.Endpoint(), 0)
		require.NoError(t, err)
		got, err := l.db.HashKV(t.Context(), 0, 0)
		require.NoError(t, err)
		require.Equal(t, want.Hash, got.Hash)
		require.Equal(t, want.HashRevision, got.Revision)
		require.Equal(t, max(want.CompactRevision, 0), got.CompactRevision)
	}
	for _, rev := range []int64{l.db.Compacted - 1, l.db.Current + 1} {
		if rev > 0 { // else it means the latest one
			_, wantErr := l.Client().HashKV(t.Context(), l.Endpoint(), rev)
			require.Error(t, wantErr)
			_, err := l.db.HashKV(t.Context(), rev, 0)
			require.ErrorIs(t, err, wantErr)
		}
	}
}

// testLaterHashKV compacts the member, which then answers as the database computes
// for it.
func (l *live) testLaterHashKV(t *testing.T, rng *rand.Rand) {
	tombstones := map[int64]bool{}
	for r, err := range l.db.Records(t.Context(), 0) {
		require.NoError(t, err)
		tombstones[r.Revision.Main] = r.Revision.Tombstone
	}
	compacted := 0
	for rev := max(l.db.Compacted, 1) + 1; rev <= l.db.Current; rev++ {
		if rng.IntN(80 / *queries + 1) > 0 && (!tombstones[rev] || rng.IntN(20 / *queries + 1) > 0) && rev != l.db.Current {
			continue
		}
		compact(t, l.Etcd, rev)
		compacted++
		for at := rev; at <= l.db.Current; at++ {
			if at < rev+3 || at == l.db.Current || rng.IntN(10 / *queries + 1) == 0 {
				l.requireSameHash(t, at)
			}
		}
	}
	require.True(t, compacted > 0 || l.db.Current <= max(l.db.Compacted, 1))
}

// Each compact revision and each revision that the file knows, against members of
// which each has compacted once.
func TestHashKVOfEachCompaction(t *testing.T) {
	db := snaptest.NewDB()
	db.Put("a", "1").Put("b", "2").Delete("a").Put("a", "3").Delete("b")
	db.Txn(func() { db.Put("c", "4").Delete("a").Put("d", "5") })
	db.Txn(func() { db.Delete("c").Delete("d") })
	db.Put("a", "6").Delete("a")
	path := db.Write(t, filepath.Join(t.TempDir(), "snapshot.db"), true)
	var members []*live
	for rev := int64(2); rev <= db.Revision(); rev++ {
		l := newLive(t, restored(t, path, func(*snapshot.RestoreConfig) {}), path)
		compact(t, l.Etcd, rev)
		members = append(members, l)
	}
	for i, l := range members {
		for rev := int64(i + 2); rev <= db.Revision(); rev++ {
			require.True(t, l.requireSameHash(t, rev))
		}
	}
}

// Values that are too large for a buffer count as well.
func TestHashKVOfLargeValues(t *testing.T) {
	path, large := largeValues(t)
	l := newLive(t, restored(t, path, func(*snapshot.RestoreConfig) {}), path)
	for rev := int64(2); rev <= large.Revision(); rev++ {
		require.True(t, l.requireSameHash(t, rev))
	}
	compact(t, l.Etcd, 3)
	for rev := int64(3); rev <= large.Revision(); rev++ {
		require.True(t, l.requireSameHash(t, rev))
	}
}
