package interop_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/interop/etcd"
)

// matchNow compares members that have just been restored with the snapshot that they
// were restored from, with one in which a value differs, and with a later one.
func matchNow(t *testing.T, r *etcd.Release, o *origin, members []*etcd.Member) {
	t.Helper()
	cfg := clientOf(members...)
	require.NoError(t, lib.Match(soon(t), cfg, o.plain))
	sameHashes(t, r, open(t, o.plain), members[0])

	const value = "a key of more than a quarter page"
	b, err := os.ReadFile(o.plain)
	require.NoError(t, err)
	require.True(t, bytes.Contains(b, []byte(value)))
	edited := filepath.Join(t.TempDir(), "edited.db")
	b = bytes.ReplaceAll(b, []byte(value), []byte(strings.ToUpper(value)))
	require.NoError(t, os.WriteFile(edited, b, 0o600))
	own, err := open(t, edited).HashKV(soon(t), 0, 0)
	require.NoError(t, err)
	err = lib.Match(soon(t), cfg, edited)
	require.ErrorIs(t, err, snapshot.ErrMismatch)
	for _, m := range members {
		require.ErrorContains(t, err, fmt.Sprintf("%s: hash %08x at revision %d, compacted at %d; the snapshot has %08x",
			m.ClientURL, o.contents.HashKV, o.contents.Revision, o.contents.CompactRevision, own.Hash))
	}

	ctx, ahead := cancelWhenAskedTwice(t, cfg)
	err = lib.Match(ctx, ahead, o.alarmed)
	require.ErrorIs(t, err, snapshot.ErrFuture)
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, snapshot.ErrMismatch)
	latest := open(t, o.alarmed).Info().Revision
	for _, m := range members {
		require.ErrorContains(t, err, fmt.Sprintf("%s at revision %d: %v", m.ClientURL, latest, rpctypes.ErrFutureRev))
	}
}

// matchLater compares members that went on with the snapshot that they were restored
// from, and with one of theirs, while they compact.
func matchLater(t *testing.T, r *etcd.Release, o *origin, members []*etcd.Member, path string) {
	t.Helper()
	cfg := clientOf(members...)
	reader := open(t, path)
	info := reader.Info()
	require.Greater(t, info.Revision, o.contents.Revision)
	require.NoError(t, lib.Match(soon(t), cfg, o.plain))
	require.NoError(t, lib.Match(soon(t), cfg, path))

	// The origin went on too, with other keys.
	st, err := dial(t, o.member).Status(soon(t), o.member.ClientURL)
	require.NoError(t, err)
	require.GreaterOrEqual(t, st.Header.Revision, info.Revision)
	err = lib.Match(soon(t), clientOf(append(members, o.member)...), path)
	require.ErrorIs(t, err, snapshot.ErrMismatch)
	require.ErrorContains(t, err, o.member.ClientURL+": hash ")
	for _, m := range members {
		require.NotContains(t, err.Error(), m.ClientURL)
	}
	results.note(r, factMatch,
		"nil; `ErrMismatch` when a value differs, or for another cluster; `ErrFuture` for a later snapshot")

	var deleted int64
	for record, err := range reader.Records(soon(t), info.CompactRevision) {
		require.NoError(t, err)
		if record.Tombstone && record.Revision.Sub == 0 {
			deleted = record.Revision.Main
			break
		}
	}
	require.Greater(t, deleted, info.CompactRevision+1)
	for _, rev := range []int64{info.CompactRevision + 1, deleted, o.contents.Revision} {
		compact(t, members, rev)
		sameHashes(t, r, reader, members[0])
		require.NoError(t, lib.Match(soon(t), cfg, path), "compacted at %d", rev)
	}
	results.note(r, factHashKV, "yes")

	if err := lib.Match(soon(t), cfg, o.plain); err == nil {
		results.note(r, factAt, "nil: they still answer for it")
	} else {
		require.ErrorIs(t, err, snapshot.ErrCompacted)
		require.NotErrorIs(t, err, snapshot.ErrMismatch)
		results.note(r, factAt, "`ErrCompacted`")
	}
	compact(t, members, info.Revision+1)
	err = lib.Match(soon(t), cfg, path)
	require.ErrorIs(t, err, snapshot.ErrCompacted)
	require.NotErrorIs(t, err, snapshot.ErrMismatch)
	for _, m := range members {
		require.ErrorContains(t, err, m.ClientURL)
	}
	results.note(r, factPast, "`ErrCompacted`")
}

// clientOf is the configuration of a client of all members.
func clientOf(members ...*etcd.Member) clientv3.Config {
	cfg := members[0].ClientConfig()
	cfg.Endpoints = nil
	for _, m := range members {
		cfg.Endpoints = append(cfg.Endpoints, m.ClientURL)
	}
	return cfg
}

// compact compacts a cluster. The members have a later revision afterwards.
func compact(t *testing.T, members []*etcd.Member, rev int64) {
	t.Helper()
	cli := dial(t, members[0])
	_, err := cli.Compact(soon(t), rev, clientv3.WithCompactPhysical())
	require.NoError(t, err)
	after := put(t, cli, "after/compaction", fmt.Sprint(rev))
	for _, m := range members {
		caughtUp(t, m, after)
	}
}

// cancelWhenAskedTwice returns a context that ends when each endpoint of the returned
// configuration has been asked for HashKV a second time.
func cancelWhenAskedTwice(t *testing.T, cfg clientv3.Config) (context.Context, clientv3.Config) {
	ctx, cancel := context.WithCancel(soon(t))
	var mu sync.Mutex
	asked, twice := map[string]int{}, 0
	cfg.DialOptions = append(cfg.DialOptions, grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string,
		req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		if strings.HasSuffix(method, "/HashKV") {
			mu.Lock()
			endpoint := cc.Target()[strings.LastIndexByte(cc.Target(), '/'):]
			if asked[endpoint]++; asked[endpoint] == 2 {
				twice++
			}
			if twice == len(cfg.Endpoints) {
				cancel()
			}
			mu.Unlock()
		}
		return invoke(ctx, method, req, reply, cc, opts...)
	}))
	return ctx, cfg
}
