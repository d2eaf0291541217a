package fetch_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

func TestSaveLoginEndsWithConfigContext(t *testing.T) {
	snaptest.NoLeaks(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(shortStall/4, cancel)
	cfg := clientv3.Config{
		Endpoints: []string{snaptest.SilentEndpoint(t)}, Username: "root", Password: "root",
		Context: ctx,
	}
	_, err := snapshot.New(snapshot.WithStallTimeout(longStall)).SaveTo(t.Context(), cfg, io.Discard)
	require.ErrorIs(t, err, context.Canceled)
}

func TestSaveCancelled(t *testing.T) {
	db := snaptest.Opaque(3<<20 + 8192)
	halfway := func(c *snaptest.SnapshotCall) error {
		return errors.Join(c.SendPart(db[:2<<20], len(db), 0), c.Stall())
	}
	for name, tc := range map[string]struct {
		end  func(context.Context, time.Duration) (context.Context, context.CancelFunc)
		want []error
	}{
		"cancel": {func(ctx context.Context, _ time.Duration) (context.Context, context.CancelFunc) {
			return context.WithCancel(ctx)
		}, []error{context.Canceled}},
		"cause": {func(ctx context.Context, _ time.Duration) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			return ctx, func() { cancel(apitest.ErrCaller) }
		}, []error{context.Canceled, apitest.ErrCaller}},
		"deadline": {func(ctx context.Context, left time.Duration) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithTimeout(ctx, left)
			context.AfterFunc(ctx, cancel)
			return ctx, func() {}
		}, []error{context.DeadlineExceeded}},
	} {
		t.Run(name, func(t *testing.T) {
			apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
				snaptest.NoLeaks(t)
				s := snaptest.Serve(t, halfway)
				// Until the server was reached: a busy machine needs more time.
				for left := shortStall; len(s.Tokens()) == 0; left *= 2 {
					require.Less(t, left, longStall)
					ctx, end := tc.end(t.Context(), left)
					m := snapshot.New(snapshot.WithProgress(func(p snapshot.Progress) {
						if p.Done > 0 {
							end()
						}
					}))
					_, err := fetch(ctx, t, m, s.ClientConfig())
					for _, want := range tc.want {
						require.ErrorIs(t, err, want)
					}
					apitest.RequireNoOther(t, err, tc.want[0])
				}
				s.WaitReleased(t)
			})
		})
	}
	t.Run("before", func(t *testing.T) {
		apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
			snaptest.NoLeaks(t)
			s := snaptest.Serve(t, halfway)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := fetch(ctx, t, snapshot.New(), s.ClientConfig())
			require.ErrorIs(t, err, context.Canceled)
			apitest.RequireNoOther(t, err, context.Canceled)
		})
	})
}

// The server knows the deadline and may notice it first.
func TestSaveDeadlineNoticedByServer(t *testing.T) {
	apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
		s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
			return errors.Join(c.Send(nil, 4096), status.Error(codes.DeadlineExceeded, "too late"))
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_, err := fetch(ctx, t, snapshot.New(snapshot.WithStallTimeout(longStall)), s.ClientConfig())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		apitest.RequireNoOther(t, err, context.DeadlineExceeded)
		require.Contains(t, err.Error(), "too late")
	})
}

func TestSaveTriesAgainUntilTheFirstMessage(t *testing.T) {
	db := snaptest.Opaque(8192)
	for name, refusal := range map[string]error{
		"unavailable": unavailable,
		"old token":   rpctypes.ErrGRPCInvalidAuthToken,
		"no user":     rpctypes.ErrGRPCUserEmpty,
	} {
		t.Run(name, func(t *testing.T) {
			apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
				snaptest.NoLeaks(t)
				s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
					if c.Number < 4 {
						return refusal
					}
					return c.SendSnapshot(db)
				})
				cfg := s.ClientConfig()
				cfg.Username, cfg.Password = "root", "root"
				got, err := fetch(t.Context(), t, snapshot.New(), cfg)
				require.NoError(t, err)
				require.Equal(t, snaptest.WithTrailer(db), got)
				require.Len(t, s.Tokens(), 4)
				require.NotContains(t, s.Tokens(), "")
				if name != "unavailable" {
					require.Len(t, slices.Compact(s.Tokens()), 4, "a token was used again")
				}
			})
		})
	}
}

func TestSaveMessageLimit(t *testing.T) {
	db := snaptest.Opaque(1 << 20)
	apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
		s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
			c.Chunk = len(db)
			return c.SendSnapshot(db)
		})
		cfg := s.ClientConfig()
		cfg.MaxCallRecvMsgSize, cfg.MaxCallSendMsgSize = 1<<20-1, 1<<10
		_, err := fetch(t.Context(), t, snapshot.New(), cfg)
		require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
	})
}
