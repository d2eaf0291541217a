package match_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/match"
	"etcd.example/snapshot/internal/query"
	"etcd.example/snapshot/internal/snaptest"
)

func open(t *testing.T, db *snaptest.DB) *query.Database {
	t.Helper()
	q, err := query.Open(t.Context(), db.Write(t, filepath.Join(t.TempDir(), "db"), true), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, q.Close()) })
	return q
}

func TestMembers(t *testing.T) {
	snaptest.NoLeaks(t)
	db := open(t, snaptest.History(t).Compact(1000))
	own, err := db.HashKV(t.Context(), 0, 0)
	require.NoError(t, err)
	later, err := db.HashKV(t.Context(), 0, db.Current-100)
	require.NoError(t, err)
	require.NotEqual(t, own.Hash, later.Hash)
	same := match.Answer{Hash: own.Hash, CompactRevision: db.Compacted, Current: db.Current}

	future := 3 // answers before the member has the revision
	answers := map[string]func(revision int64) (match.Answer, error){
		"same": func(int64) (match.Answer, error) { return same, nil },
		"compacted": func(int64) (match.Answer, error) {
			return match.Answer{Hash: later.Hash, CompactRevision: later.CompactRevision}, nil
		},
		"lags": func(int64) (match.Answer, error) {
			if future--; future > 0 {
				return match.Answer{}, fault.ErrFuture
			}
			return same, nil
		},
		"differs": func(int64) (match.Answer, error) {
			return match.Answer{Hash: 0xbad, CompactRevision: db.Compacted}, nil
		},
		"gone": func(int64) (match.Answer, error) { return match.Answer{}, fault.ErrCompacted },
		"kept": func(revision int64) (match.Answer, error) {
			if revision == 0 {
				return same, nil
			}
			return match.Answer{Hash: 1, CompactRevision: 10}, nil
		},
		"never":       func(int64) (match.Answer, error) { return match.Answer{}, fault.ErrFuture },
		"uncompacted": func(int64) (match.Answer, error) { return match.Answer{Hash: 1, CompactRevision: 10}, nil },
	}
	ask := func(_ context.Context, endpoint string, revision int64) (match.Answer, error) {
		require.True(t, revision == db.Current || revision == 0)
		return answers[endpoint](revision)
	}
	require.NoError(t, match.Members(t.Context(), db, []string{"same", "lags", "compacted"}, ask))
	require.Zero(t, future)

	err = match.Members(t.Context(), db, []string{"same", "differs"}, ask)
	require.ErrorIs(t, err, fault.ErrMismatch)
	require.ErrorContains(t, err, "differs: hash 00000bad")
	require.NotContains(t, err.Error(), "same:")
	for _, endpoint := range []string{"gone", "kept"} {
		err := match.Members(t.Context(), db, []string{endpoint}, ask)
		require.ErrorIs(t, err, fault.ErrCompacted, endpoint)
		require.NotErrorIs(t, err, fault.ErrMismatch, endpoint)
	}
	for endpoint, want := range map[string]error{"never": fault.ErrFuture, "uncompacted": fault.ErrCompacted} {
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		err := match.Members(ctx, db, []string{endpoint}, func(ctx context.Context, endpoint string, revision int64) (match.Answer, error) {
			if asked++; asked == 4 {
				cancel()
			}
			return ask(ctx, endpoint, revision)
		})
		require.ErrorIs(t, err, want)
		require.ErrorIs(t, err, context.Canceled)
	}
}

// Why a member could not be compared yet is not lost when ctx ends during a question.
func TestMembersLagUntilTheEnd(t *testing.T) {
	db := open(t, snaptest.History(t))
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	err := match.Members(ctx, db, []string{"lags"}, func(ctx context.Context, _ string, _ int64) (match.Answer, error) {
		if asked++; asked == 1 {
			return match.Answer{}, fault.ErrFuture
		}
		cancel()
		return match.Answer{}, ctx.Err()
	})
	require.Equal(t, 2, asked)
	require.ErrorIs(t, err, fault.ErrFuture)
	require.ErrorIs(t, err, context.Canceled)

	// The end of ctx does not excuse another error.
	asked = 0
	ctx, cancel = context.WithCancel(t.Context())
	err = match.Members(ctx, db, []string{"differs"}, func(context.Context, string, int64) (match.Answer, error) {
		if asked++; asked == 1 {
			return match.Answer{}, fault.ErrFuture
		}
		cancel()
		return match.Answer{}, fault.ErrStalled
	})
	require.ErrorIs(t, err, fault.ErrStalled)
	require.NotErrorIs(t, err, fault.ErrFuture)
}
