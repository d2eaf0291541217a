package fetch_test

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/trailer"
)

// put gives the member something to save.
func put(t *testing.T, e *snaptest.Etcd, keys, bytes int) {
	t.Helper()
	for i := range keys {
		_, err := e.Client().Put(t.Context(), fmt.Sprintf("key-%04d", i), string(snaptest.Opaque(bytes)))
		require.NoError(t, err)
	}
}

// requireSaved saves in both ways and wants what came to be whole.
func requireSaved(t *testing.T, cfg clientv3.Config) {
	t.Helper()
	apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
		got, err := fetch(t.Context(), t, snapshot.New(snapshot.WithStallTimeout(longStall)), cfg)
		require.NoError(t, err)
		require.True(t, trailer.Present(int64(len(got))))
		require.Equal(t, snaptest.WithTrailer(got[:len(got)-trailer.Size]), got)
	})
}

func requireRefused(t *testing.T, cfg clientv3.Config, want error) {
	t.Helper()
	apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
		_, err := fetch(t.Context(), t, snapshot.New(snapshot.WithStallTimeout(longStall)), cfg)
		require.ErrorIs(t, err, want)
		apitest.RequireNoOther(t, err, want)
		if reply := (rpctypes.EtcdError{}); errors.As(want, &reply) {
			require.Equal(t, reply.Code(), status.Code(err))
		}
	})
}

func TestSaveWithTLS(t *testing.T) {
	for name, mutual := range map[string]bool{"server": false, "mutual": true} {
		t.Run(name, func(t *testing.T) {
			snaptest.NoLeaks(t)
			e := snaptest.Start(t, snaptest.WithTLS(mutual), snaptest.With(func(c *snaptest.Config) {
				c.Configure = func(ec *embed.Config) {
					if !mutual { // a CA alone makes etcd ask for certificates
						ec.ClientTLSInfo.TrustedCAFile = ""
					}
				}
			}))
			put(t, e, 50, 40_000)
			requireSaved(t, e.ClientConfig())
		})
	}
}

// enableAuth makes a user root, and a user reader who may read every key.
func enableAuth(t *testing.T, e *snaptest.Etcd) {
	t.Helper()
	c, ctx := e.Client(), t.Context()
	for _, user := range []string{"root", "reader"} {
		_, err := c.RoleAdd(ctx, user)
		require.NoError(t, err)
		_, err = c.UserAdd(ctx, user, user+"-secret")
		require.NoError(t, err)
		_, err = c.UserGrantRole(ctx, user, user)
		require.NoError(t, err)
	}
	_, err := c.RoleGrantPermission(ctx, "reader", "\x00", "\x00", clientv3.PermissionType(clientv3.PermRead))
	require.NoError(t, err)
	_, err = c.AuthEnable(ctx)
	require.NoError(t, err)
}

func as(cfg clientv3.Config, user, password string) clientv3.Config {
	cfg.Username, cfg.Password = user, password
	return cfg
}

func TestSaveWithAuth(t *testing.T) {
	snaptest.NoLeaks(t)
	e := snaptest.Start(t)
	put(t, e, 10, 1000)
	enableAuth(t, e)
	cfg := e.ClientConfig()

	t.Run("root", func(t *testing.T) { requireSaved(t, as(cfg, "root", "root-secret")) })
	t.Run("not root", func(t *testing.T) {
		requireRefused(t, as(cfg, "reader", "reader-secret"), rpctypes.ErrPermissionDenied)
		_, err := snapshot.New().SaveTo(t.Context(), as(cfg, "reader", "reader-secret"), io.Discard)
		require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
	})
	t.Run("wrong password", func(t *testing.T) {
		requireRefused(t, as(cfg, "root", "guessed"), rpctypes.ErrAuthFailed)
	})
	t.Run("no user", func(t *testing.T) { requireRefused(t, cfg, rpctypes.ErrUserEmpty) })
	t.Run("bad token", func(t *testing.T) {
		cfg := cfg
		cfg.Token = "made up"
		requireRefused(t, cfg, rpctypes.ErrInvalidAuthToken)
	})
	t.Run("user and token", func(t *testing.T) {
		cfg := as(cfg, "root", "root-secret")
		cfg.Token = "made up"
		requireRefused(t, cfg, clientv3.ErrMutuallyExclusiveCfg)
	})
}

// A token lives shorter than the stream.
func TestSaveWhileTokenExpires(t *testing.T) {
	t.Parallel()
	e := snaptest.Start(t, snaptest.With(func(c *snaptest.Config) {
		c.Configure = func(ec *embed.Config) { ec.AuthTokenTTL = 1 }
	}))
	put(t, e, 100, 40_000)
	enableAuth(t, e)

	cfg := as(e.ClientConfig(), "root", "root-secret")
	cfg.DialOptions = smallWindow
	waited := false
	saved, err := snapshot.New().SaveTo(t.Context(), cfg, apitest.WriterFunc(func(p []byte) (int, error) {
		if !waited {
			waited = true
			waitUntilTokenExpires(t, e)
		}
		return len(p), nil
	}))
	require.NoError(t, err)
	require.True(t, waited)
	require.Greater(t, saved.Size, int64(100*40_000))
}

// smallWindow keeps most of a database at the server until it is read.
var smallWindow = []grpc.DialOption{grpc.WithInitialWindowSize(1 << 16), grpc.WithInitialConnWindowSize(1 << 16)}

// waitUntilTokenExpires waits as long as a token lives that is made now.
func waitUntilTokenExpires(t *testing.T, e *snaptest.Etcd) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{e.Endpoint()}, Logger: zap.NewNop()})
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	resp, err := c.Authenticate(t.Context(), "root", "root-secret")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		cfg := e.ClientConfig()
		cfg.Token = resp.Token
		c, err := clientv3.New(cfg)
		require.NoError(t, err)
		defer func() { _ = c.Close() }()
		_, err = c.Get(t.Context(), "key-0000")
		// Each use gives the token a new life, so it is left alone for longer.
		return err != nil
	}, 30*time.Second, 2500*time.Millisecond)
}

func TestSaveFromEachMember(t *testing.T) {
	t.Parallel()
	urls := snaptest.FreePeerURLs(t, 2)
	cluster := snaptest.StartCluster(t, []snaptest.Member{
		{Name: "a", PeerURL: urls[0]},
		{Name: "b", PeerURL: urls[1]},
	})
	put(t, cluster[0], 20, 1000)
	learner := snaptest.Join(t, cluster[0], "learner", true)

	leader := cluster[0].Server.Server.Leader()
	for _, e := range append(cluster, learner) {
		role := "follower"
		switch {
		case e == learner:
			role = "learner"
			require.True(t, e.Server.Server.IsLearner())
		case e.Server.Server.MemberID() == leader:
			role = "leader"
		}
		t.Run(role, func(t *testing.T) { requireSaved(t, e.ClientConfig()) })
	}
}

func TestSaveFromMemberThatStops(t *testing.T) {
	t.Parallel()
	e := snaptest.Start(t)
	put(t, e, 150, 40_000)
	cfg := e.ClientConfig()
	cfg.DialOptions = smallWindow
	var stopped sync.Once
	m := snapshot.New(snapshot.WithStallTimeout(longStall), snapshot.WithProgress(func(p snapshot.Progress) {
		if p.Done > 0 {
			stopped.Do(e.Stop)
		}
	}))
	_, err := apitest.SaveToPath(t.Context(), t, m, cfg)
	require.ErrorIs(t, err, snapshot.ErrTruncated)
	apitest.RequireNoOther(t, err, snapshot.ErrTruncated)
	require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
}
