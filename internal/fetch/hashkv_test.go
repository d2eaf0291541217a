package fetch_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/fetch"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

func fetcher(connect, stall time.Duration) fetch.Fetch {
	return fetch.Fetch{FS: durable.OS, Logger: zap.NewNop(), ConnectTimeout: connect, StallTimeout: stall}
}

// hashKV asks the one endpoint of cfg, and wants a zero Hash with an error.
func hashKV(ctx context.Context, t *testing.T, f fetch.Fetch, cfg clientv3.Config, revision int64) (fetch.Hash, error) {
	t.Helper()
	endpoint := cfg.Endpoints[0]
	cfg.Endpoints = []string{"http://elsewhere.invalid:1", "http://elsewhere.invalid:2"}
	hash, err := f.HashKV(ctx, cfg, endpoint, revision)
	require.Equal(t, []string{"http://elsewhere.invalid:1", "http://elsewhere.invalid:2"}, cfg.Endpoints)
	if err != nil {
		require.Zero(t, hash)
	}
	return hash, err
}

// At every revision HashKV is what etcd's client says, errors included.
func TestHashKVOfMember(t *testing.T) {
	for name, option := range map[string]snaptest.Option{
		"plain":      snaptest.With(func(*snaptest.Config) {}),
		"mutual TLS": snaptest.WithTLS(true),
	} {
		t.Run(name, func(t *testing.T) {
			snaptest.NoLeaks(t)
			e := snaptest.Start(t, option)
			put(t, e, 12, 100)
			_, err := e.Client().Delete(t.Context(), "key-0003")
			require.NoError(t, err)
			_, err = e.Client().Compact(t.Context(), 6, clientv3.WithCompactPhysical())
			require.NoError(t, err)
			f := fetcher(never, never)
			for revision := int64(0); revision <= 16; revision++ {
				want, wantErr := e.Client().HashKV(t.Context(), e.Endpoint(), revision)
				got, err := hashKV(t.Context(), t, f, e.ClientConfig(), revision)
				if wantErr != nil {
					require.ErrorIs(t, err, wantErr, revision)
					sentinel := snapshot.ErrFuture
					if revision < 6 {
						sentinel = snapshot.ErrCompacted
					}
					require.ErrorIs(t, err, sentinel)
					require.Equal(t, codes.OutOfRange, status.Code(err))
					require.ErrorContains(t, err, fmt.Sprintf("hash of %s at revision %d", e.Endpoint(), revision))
					apitest.RequireNoOther(t, err, nil)
					continue
				}
				require.NoError(t, err)
				require.Equal(t, fetch.Hash{
					Hash: want.Hash, Revision: want.HashRevision, CompactRevision: want.CompactRevision,
					ClusterID: want.Header.ClusterId, MemberID: want.Header.MemberId, CurrentRevision: 14,
				}, got)
				require.EqualValues(t, uint64(e.Server.Server.MemberID()), got.MemberID)
			}
			require.ErrorIs(t, func() error { _, err := hashKV(t.Context(), t, f, e.ClientConfig(), 5); return err }(), rpctypes.ErrCompacted)
			require.ErrorIs(t, func() error { _, err := hashKV(t.Context(), t, f, e.ClientConfig(), 15); return err }(), rpctypes.ErrFutureRev)
		})
	}
}

func TestHashKVWithAuth(t *testing.T) {
	snaptest.NoLeaks(t)
	e := snaptest.Start(t)
	put(t, e, 3, 100)
	enableAuth(t, e)
	_, err := hashKV(t.Context(), t, fetcher(never, never), as(e.ClientConfig(), "root", "root-secret"), 0)
	require.NoError(t, err)
	_, err = hashKV(t.Context(), t, fetcher(never, never), as(e.ClientConfig(), "root", "guessed"), 0)
	require.ErrorIs(t, err, rpctypes.ErrAuthFailed)
}

// etcd 3.4 does not say for which revision its answer is.
func TestHashKVOfOldServer(t *testing.T) {
	s := snaptest.Serve(t, nil)
	s.AnswerHashKV(func(_ context.Context, req *pb.HashKVRequest) (*pb.HashKVResponse, error) {
		return &pb.HashKVResponse{Header: &pb.ResponseHeader{ClusterId: 1, MemberId: 2, Revision: 30}, Hash: uint32(req.Revision), CompactRevision: 4}, nil
	})
	for asked, want := range map[int64]int64{7: 7, 0: 30} {
		got, err := hashKV(t.Context(), t, fetcher(never, never), s.ClientConfig(), asked)
		require.NoError(t, err)
		require.Equal(t, fetch.Hash{Hash: uint32(asked), Revision: want, CompactRevision: 4, ClusterID: 1, MemberID: 2, CurrentRevision: 30}, got)
	}
	s.AnswerHashKV(func(context.Context, *pb.HashKVRequest) (*pb.HashKVResponse, error) { return &pb.HashKVResponse{}, nil })
	got, err := hashKV(t.Context(), t, fetcher(never, never), s.ClientConfig(), 9)
	require.NoError(t, err)
	require.Equal(t, fetch.Hash{Revision: 9}, got, "without a header")
}

func TestHashKVStalls(t *testing.T) {
	for name, stall := range map[string]func(*snaptest.FakeServer) string{
		"answer": func(s *snaptest.FakeServer) string { s.StallHashKV(); return "" },
		"login":  func(s *snaptest.FakeServer) string { s.HangLogins(); return "root" },
	} {
		t.Run(name, func(t *testing.T) {
			snaptest.NoLeaks(t)
			s := snaptest.Serve(t, nil)
			user := stall(s)
			_, err := hashKV(t.Context(), t, fetcher(never, shortStall), as(s.ClientConfig(), user, user), 1)
			require.ErrorIs(t, err, snapshot.ErrStalled)
			apitest.RequireNoOther(t, err, snapshot.ErrStalled)
			s.WaitReleased(t)

			ctx, cancel := context.WithTimeout(t.Context(), shortStall)
			defer cancel()
			_, err = hashKV(ctx, t, fetcher(never, never), as(s.ClientConfig(), user, user), 1)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			apitest.RequireNoOther(t, err, context.DeadlineExceeded)
		})
	}
}

func TestHashKVUnreachable(t *testing.T) {
	for name, tc := range map[string]struct {
		endpoint func(testing.TB) string
		options  []grpc.DialOption
		text     string
	}{
		"refusing":   {snaptest.RefusingEndpoint, nil, "connection refused"},
		"silent":     {snaptest.SilentEndpoint, nil, "connected, but the server sent nothing"},
		"hanging up": {hangingUp, nil, "the server closed the connection"},
		"dialer of the caller": {snaptest.RefusingEndpoint, []grpc.DialOption{
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return nil, apitest.ErrCaller }),
		}, apitest.ErrCaller.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			snaptest.NoLeaks(t)
			cfg := clientv3.Config{Endpoints: []string{tc.endpoint(t)}, DialOptions: tc.options}
			_ = timedOut(t, snapshot.ErrUnreachable, func(connect time.Duration) error {
				_, err := hashKV(t.Context(), t, fetcher(connect, 1), cfg, 1)
				return err
			}, func(err error) bool { return strings.Contains(err.Error(), tc.text) })
		})
	}
}

// Where one side refuses the other, no other attempt can help.
func TestHashKVRefusedByTLS(t *testing.T) {
	snaptest.NoLeaks(t)
	e := snaptest.Start(t, snaptest.WithTLS(false))
	cfg := e.ClientConfig()
	cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	_, err := hashKV(t.Context(), t, fetcher(never, never), cfg, 1)
	require.ErrorIs(t, err, snapshot.ErrUnreachable)
	require.ErrorAs(t, err, new(x509.UnknownAuthorityError))
}

func TestHashKVOfServerThatComesUp(t *testing.T) {
	s := snaptest.Serve(t, nil)
	s.AnswerHashKV(func(context.Context, *pb.HashKVRequest) (*pb.HashKVResponse, error) {
		return &pb.HashKVResponse{Hash: 5, HashRevision: 6}, nil
	})
	cfg := s.ClientConfig()
	cfg.DialOptions = []grpc.DialOption{refuseAtFirst(6)}
	got, err := hashKV(t.Context(), t, fetcher(longStall, longStall), cfg, 8)
	require.NoError(t, err)
	require.Equal(t, fetch.Hash{Hash: 5, Revision: 6}, got)
}

func TestHashKVBeforeItDials(t *testing.T) {
	s := snaptest.Serve(t, nil)
	_, err := fetcher(never, never).HashKV(t.Context(), s.ClientConfig(), "", 1)
	require.ErrorIs(t, err, snapshot.ErrEndpoints)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrClosedPipe)
	_, err = hashKV(ctx, t, fetcher(never, never), clientv3.Config{Endpoints: []string{"http://127.0.0.1:1"}}, 1)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, io.ErrClosedPipe)
	require.NotErrorIs(t, err, syscall.ECONNREFUSED)
	// Errors of the server that have no name here are its own.
	_, err = hashKV(t.Context(), t, fetcher(never, never), s.ClientConfig(), 1)
	require.Equal(t, codes.Unimplemented, status.Code(err))
}
