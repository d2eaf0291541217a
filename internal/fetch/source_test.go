package fetch_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/trailer"
)

// dialled is a client of the test's own, closed when the test ends.
func dialled(t *testing.T, cfg clientv3.Config) *clientv3.Client {
	t.Helper()
	cli, err := clientv3.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = cli.Close() })
	return cli
}

// connected waits until the client has a connection.
func connected(t *testing.T, cli *clientv3.Client) *clientv3.Client {
	t.Helper()
	conn := cli.ActiveConnection()
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		require.True(t, conn.WaitForStateChange(t.Context(), state))
	}
	return cli
}

// saveByClient is a [apitest.SavedBy] with a client that is made for it.
func saveByClient(ctx context.Context, t *testing.T, m apitest.Manager, cfg clientv3.Config) ([]byte, error) {
	return saveFrom(ctx, t, m, dialled(t, cfg))
}

// saveFrom checks what apitest.SaveToPath does.
func saveFrom(ctx context.Context, t *testing.T, m apitest.Manager, cli *clientv3.Client) ([]byte, error) {
	t.Helper()
	return apitest.SaveToPath(ctx, t, savingFrom{m, t, cli}, clientv3.Config{})
}

// savingFrom saves from its client whatever the Config says.
type savingFrom struct {
	apitest.Manager
	t   *testing.T
	cli *clientv3.Client
}

func (s savingFrom) Save(ctx context.Context, _ clientv3.Config, path string) error {
	saved, err := s.SaveFrom(ctx, s.cli, path)
	if err != nil {
		require.Zero(s.t, saved)
	}
	return err
}

// A client that its owner goes on to use saves as Save does, also several at once.
func TestSaveFromClient(t *testing.T) {
	for name, mutual := range map[string]bool{"plain": false, "mutual TLS": true} {
		t.Run(name, func(t *testing.T) {
			snaptest.NoLeaks(t)
			var opts []snaptest.Option
			if mutual {
				opts = append(opts, snaptest.WithTLS(true))
			}
			e := snaptest.Start(t, opts...)
			put(t, e, 50, 40_000)
			enableAuth(t, e)
			cfg := as(e.ClientConfig(), "root", "root-secret")
			cli := dialled(t, cfg)
			m := snapshot.New(snapshot.WithStallTimeout(longStall))
			dir := t.TempDir()
			var wg sync.WaitGroup
			var all [3]snapshot.Saved
			var errs [3]error
			for i := range all {
				wg.Go(func() { all[i], errs[i] = m.SaveFrom(t.Context(), cli, filepath.Join(dir, string(rune('a'+i)))) })
			}
			wg.Wait()
			require.NoError(t, errors.Join(errs[:]...))
			want, err := m.SaveFile(t.Context(), cfg, filepath.Join(dir, "d"))
			require.NoError(t, err)
			for i, saved := range all {
				content, err := os.ReadFile(filepath.Join(dir, string(rune('a'+i))))
				require.NoError(t, err)
				require.Equal(t, sha256.Sum256(content[:len(content)-trailer.Size]), saved.SHA256)
				require.EqualValues(t, len(content), saved.Size)
				require.Positive(t, saved.Took)
				// A login changes the database, but not its key space; and a server sets
				// the storage version some time after its start.
				saved.SHA256, saved.Size, saved.Took, saved.Version = want.SHA256, want.Size, want.Took, want.Version
				require.Equal(t, want, saved)
			}
			require.EqualValues(t, 51, want.Revision)
			require.Equal(t, []string{"a", "b", "c", "d"}, snaptest.TreeList(t, dir))

			require.Equal(t, cfg.Endpoints, cli.Endpoints())
			_, err = cli.Put(t.Context(), "key", "value")
			require.NoError(t, err, "the client is of no more use")
			_, err = m.SaveFrom(t.Context(), cli, filepath.Join(dir, "e"))
			require.NoError(t, err)

			reader := dialled(t, as(e.ClientConfig(), "reader", "reader-secret"))
			_, err = saveFrom(t.Context(), t, m, reader)
			require.ErrorIs(t, err, rpctypes.ErrPermissionDenied)
		})
	}
}

func TestSaveFromClientWantsOneEndpoint(t *testing.T) {
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(snaptest.Opaque(4096)) })
	two := s.ClientConfig()
	two.Endpoints = append(two.Endpoints, s.Endpoint())
	none := dialled(t, s.ClientConfig())
	none.SetEndpoints()
	empty := dialled(t, s.ClientConfig())
	empty.SetEndpoints("")
	for name, cli := range map[string]*clientv3.Client{
		"nil":           nil,
		"zero":          {},
		"no connection": clientv3.NewCtxClient(t.Context()),
		"none":          none,
		"empty":         empty,
		"two":           dialled(t, two),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := saveFrom(t.Context(), t, snapshot.New(), cli)
			require.ErrorIs(t, err, snapshot.ErrEndpoints)
		})
	}
	require.Empty(t, s.Tokens(), "asked")
}

// gRPC says why an attempt of the client's to connect failed.
func TestSaveFromClientUnreachable(t *testing.T) {
	snaptest.NoLeaks(t)
	e := snaptest.Start(t, snaptest.WithTLS(false))
	for name, tc := range map[string]struct {
		endpoint func(testing.TB) string
		options  []grpc.DialOption
		text     string
	}{
		"refusing": {snaptest.RefusingEndpoint, nil, "connection refused"},
		"silent":   {snaptest.SilentEndpoint, nil, "within"},
		"unknown authority": {func(testing.TB) string { return e.Endpoint() }, []grpc.DialOption{
			grpc.WithTransportCredentials(credentials.NewTLS(nil)),
		}, "certificate signed by unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			endpoint := tc.endpoint(t)
			cli := dialled(t, clientv3.Config{Endpoints: []string{endpoint}, DialOptions: tc.options, Logger: zap.NewNop()})
			err := timedOut(t, snapshot.ErrUnreachable, func(connect time.Duration) error {
				// The stall timeout has not begun.
				m := snapshot.New(snapshot.WithConnectTimeout(connect), snapshot.WithStallTimeout(1))
				_, err := saveFrom(t.Context(), t, m, cli)
				return err
			}, func(err error) bool { return strings.Contains(err.Error(), tc.text) })
			require.ErrorContains(t, err, endpoint+", within ")

			ctx, cancel := context.WithTimeout(t.Context(), shortStall)
			defer cancel()
			_, err = saveFrom(ctx, t, snapshot.New(snapshot.WithConnectTimeout(0)), cli)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			apitest.RequireNoOther(t, err, context.DeadlineExceeded)
		})
	}
}

// With a client that connects late, the stall timeout starts with the connection,
// as in TestSaveStallTimeoutCountsFromTheConnection.
func TestSaveFromClientThatConnectsLate(t *testing.T) {
	for stall := shortStall; ; stall *= 2 {
		s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(snaptest.Opaque(8192)) })
		cfg := s.ClientConfig()
		cfg.DialOptions = []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			select {
			case <-time.After(stall + stall/2):
			case <-ctx.Done():
			}
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		})}
		m := snapshot.New(snapshot.WithConnectTimeout(never), snapshot.WithStallTimeout(stall))
		_, err := saveByClient(t.Context(), t, m, cfg)
		if err == nil {
			return
		}
		require.ErrorIs(t, err, snapshot.ErrStalled)
		require.NotEmpty(t, s.Tokens(), "stalled before there was a connection")
		require.Less(t, stall, longStall)
	}
}

// With a client that is connected there is nothing to connect: it is the stall
// timeout that ends the call, also while the login hangs.
func TestSaveFromConnectedClientStalls(t *testing.T) {
	snaptest.NoLeaks(t)
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.Stall() })
	cli := connected(t, dialled(t, as(s.ClientConfig(), "root", "root")))
	m := snapshot.New(snapshot.WithConnectTimeout(never), snapshot.WithStallTimeout(shortStall))
	_, err := saveFrom(t.Context(), t, m, cli)
	require.ErrorIs(t, err, snapshot.ErrStalled)
	apitest.RequireNoOther(t, err, snapshot.ErrStalled)
	s.WaitReleased(t)
	require.Len(t, s.Tokens(), 1)

	s.HangLogins()
	_, err = saveFrom(t.Context(), t, m, cli)
	require.ErrorIs(t, err, snapshot.ErrStalled)
	s.WaitReleased(t)
	require.Len(t, s.Tokens(), 1, "logged in")

	// Longer than the connect timeout, and not a word.
	m = snapshot.New(snapshot.WithConnectTimeout(shortStall), snapshot.WithStallTimeout(2*shortStall))
	_, err = saveFrom(t.Context(), t, m, cli)
	require.ErrorIs(t, err, snapshot.ErrStalled)
	s.WaitReleased(t)
}

// The owner of the client closes it: before the call, before a byte, or in the middle.
func TestSaveFromClientThatIsClosed(t *testing.T) {
	db := snaptest.Opaque(3 << 20)
	for name, tc := range map[string]struct {
		script func(c *snaptest.SnapshotCall) error
		want   error
	}{
		"before":       {nil, nil},
		"before bytes": {func(c *snaptest.SnapshotCall) error { return nil }, nil},
		"in the middle": {func(c *snaptest.SnapshotCall) error {
			return c.SendPart(db[:2<<20], len(db), 0)
		}, snapshot.ErrTruncated},
	} {
		t.Run(name, func(t *testing.T) {
			snaptest.NoLeaks(t)
			var cli *clientv3.Client
			at := make(chan struct{})
			s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
				if err := tc.script(c); err != nil {
					return err
				}
				close(at)
				return c.Stall()
			})
			cli = dialled(t, s.ClientConfig())
			if tc.script == nil {
				require.NoError(t, cli.Close())
			} else {
				go func() {
					<-at
					_ = cli.Close()
				}()
			}
			_, err := saveFrom(t.Context(), t, snapshot.New(snapshot.WithStallTimeout(never)), cli)
			require.Equal(t, codes.Canceled, status.Code(err), "%v", err)
			if tc.want != nil {
				require.ErrorIs(t, err, tc.want)
			}
			require.NotErrorIs(t, err, snapshot.ErrStalled)
			require.NotErrorIs(t, err, snapshot.ErrUnreachable)
		})
	}
}

// A client with no limit of its own does not let a server fill the memory.
func TestSaveFromClientLimitsMessages(t *testing.T) {
	db := make([]byte, 65<<20)
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
		c.Chunk = len(db)
		return c.SendSnapshot(db)
	})
	for name, tc := range map[string]struct {
		receive, send int
		code          codes.Code
	}{
		"default":            {0, 0, codes.ResourceExhausted},
		"own":                {66 << 20, 0, codes.OK},
		"own, small":         {1 << 20, 0, codes.ResourceExhausted},
		"may send such, too": {0, 66 << 20, codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := s.ClientConfig()
			cfg.MaxCallRecvMsgSize, cfg.MaxCallSendMsgSize = tc.receive, tc.send
			got, err := saveByClient(t.Context(), t, snapshot.New(snapshot.WithStallTimeout(longStall)), cfg)
			require.Equal(t, tc.code, status.Code(err), "%v", err)
			if err == nil {
				require.Len(t, got, len(db)+trailer.Size)
			}
		})
	}
}
