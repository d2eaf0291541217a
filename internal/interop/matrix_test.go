package interop_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	reference "go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/interop"
	"etcd.example/snapshot/internal/interop/etcd"
)

// TestMatrix takes a snapshot of each minor version through its whole life on
// servers of that version.
func TestMatrix(t *testing.T) {
	eachRelease(t, func(t *testing.T, r *etcd.Release) {
		o := originOf(t, r)
		results.server(r)
		whole := true
		for _, part := range []struct {
			name string
			test func(*testing.T, *etcd.Release, *origin)
		}{
			{"judged", testJudged},
			{"hashed", testHashed},
			{"alone", testAlone},
			{"three", testThree},
			{"bumped", testBumped},
			{"copied", testCopied},
		} {
			whole = t.Run(part.name, func(t *testing.T) { part.test(t, r, o) }) && whole
		}
		if whole {
			ranThrough(r)
		}
	})
}

func testJudged(t *testing.T, r *etcd.Release, o *origin) {
	for _, path := range []string{o.plain, o.alarmed} {
		want, err := reference.NewV3(zap.NewNop()).Status(path)
		require.NoError(t, err)
		got, err := lib.Status(path)
		require.NoError(t, err)
		require.Equal(t, snapshot.Status(want), got)
		verified, err := lib.Verify(soon(t), path)
		require.NoError(t, err)
		require.Equal(t, got, verified)
	}
	st, err := lib.Status(o.plain)
	require.NoError(t, err)
	require.Equal(t, o.contents.Revision, st.Revision)
	require.Equal(t, len(o.contents.Keys), st.TotalKey)
	fi, err := os.Stat(o.plain)
	require.NoError(t, err)
	require.Equal(t, fi.Size()-32, st.TotalSize)
	version := st.Version
	if version == "" {
		version = "not in the file"
	}
	results.note(r, factStorage, version)
}

func testAlone(t *testing.T, r *etcd.Release, o *origin) {
	m := asRoot.boot(t, r, o.plain, 1)[0]
	cli := dial(t, m)
	same(t, o, m, 0)
	results.note(r, factAlone, "yes")
	results.note(r, factRevision, "as they were")
	checkUsers(t, m)
	results.note(r, factAuth, "as they were, and authentication is on: clients need their passwords")
	checkLeases(t, r, o, cli)

	was, is := identity(t, dial(t, o.member)), identity(t, cli)
	require.NotEqual(t, was.Header.ClusterId, is.Header.ClusterId)
	require.Len(t, is.Members, 1)
	require.NotEqual(t, was.Members[0].ID, is.Members[0].ID)
	require.Equal(t, "m0", is.Members[0].Name)
	require.Equal(t, []string{m.ClientURL}, is.Members[0].ClientURLs)
	results.note(r, factIdentity,
		"new, those of the restore; only the alarms of the old members are left")

	log, err := os.ReadFile(m.LogPath())
	require.NoError(t, err)
	if strings.Contains(string(log), "set cluster version from store") {
		results.note(r, factCluster, "the server takes the old one from the file, then raises it to its own")
	} else {
		results.note(r, factCluster, "decided anew")
	}

	goesOn(t, cli, o.contents.Revision)
	results.note(r, factGoesOn, "yes")

	joined := join(t, cli, []*etcd.Member{m})
	same(t, o, joined, o.contents.Revision)
	results.note(r, factJoins, "yes")

	// Both vote now, so both must come back.
	m.Stop()
	joined.Stop()
	m, joined = start(t, m.Config), start(t, joined.Config)
	ready(t, m, joined)
	same(t, o, m, o.contents.Revision)
	same(t, o, joined, o.contents.Revision)
	saveAgain(t, joined)
	results.note(r, factAgain, "yes")
}

func testThree(t *testing.T, r *etcd.Release, o *origin) {
	members := asRoot.boot(t, r, o.plain, 3)
	for _, m := range members {
		same(t, o, m, 0)
	}
	results.note(r, factThree, "yes")
	matchNow(t, r, o, members)

	goesOn(t, dial(t, members[0]), o.contents.Revision)
	fourth := join(t, dial(t, members[0]), members)
	same(t, o, fourth, o.contents.Revision)

	members[0].Stop()
	members = append(members[1:], fourth)
	ready(t, members...)
	rev := put(t, dial(t, members[0]), "after/one lost", "1")
	for _, m := range members {
		caughtUp(t, m, rev)
		same(t, o, m, o.contents.Revision)
	}
	again := saveAgain(t, members[1])
	results.note(r, factFourth, "yes")
	matchLater(t, r, o, members, again)
}

func testBumped(t *testing.T, r *etcd.Release, o *origin) {
	const bump = 1_000_000_000
	c := asRoot
	c.edit = func(cfg *snapshot.RestoreConfig) {
		cfg.RevisionBump, cfg.MarkCompacted = bump, true
	}
	members := c.boot(t, r, o.plain, 3)
	bumped := o.contents.Revision + bump
	cli := dial(t, members[0])
	resp, err := cli.Get(soon(t), "\x00", clientv3.WithFromKey())
	require.NoError(t, err)
	require.Equal(t, bumped, resp.Header.Revision)
	require.Len(t, resp.Kvs, len(o.contents.Keys))

	// 3.4 refuses a hash at the very revision that was compacted.
	require.Equal(t, bumped+1, put(t, cli, "zz/after", "1"))
	var first interop.Contents
	for i, m := range members {
		caughtUp(t, m, bumped+1)
		got, err := interop.Read(soon(t), dial(t, m), bumped+1)
		require.NoError(t, err)
		require.Equal(t, bumped, got.CompactRevision)
		sameKeys(t, o.contents.Keys, got.Keys[:len(got.Keys)-1])
		require.Equal(t, o.contents.Leases, got.Leases)
		if i == 0 {
			first = got
		}
		require.Equal(t, first, got)
	}
	ctx := soon(t)
	for _, old := range []int64{1, o.contents.CompactRevision, o.contents.Revision, o.contents.Revision + 1, bumped - 1} {
		resp := <-cli.Watch(ctx, "app/hot", clientv3.WithRev(old))
		require.ErrorIs(t, resp.Err(), rpctypes.ErrCompacted, "watch from revision %d", old)
		require.Equal(t, bumped, resp.CompactRevision)
	}
	_, err = cli.Get(ctx, "app/hot", clientv3.WithRev(o.contents.Revision))
	require.ErrorIs(t, err, rpctypes.ErrCompacted)
	require.Equal(t, bumped+2, put(t, cli, "app/hot", "after"))
	anew := <-cli.Watch(ctx, "app/hot", clientv3.WithRev(bumped+1))
	require.NoError(t, anew.Err())
	require.Len(t, anew.Events, 1)
	require.Equal(t, bumped+2, anew.Events[0].Kv.ModRevision)
	saveAgain(t, members[0])
	results.note(r, factBumped,
		"watchers from before are told of the compaction, revisions go on above the bump")
}

// testCopied restores from the db file of a killed server's data directory.
func testCopied(t *testing.T, r *etcd.Release, o *origin) {
	m := asRoot.boot(t, r, o.plain, 1)[0]
	put(t, dial(t, m), "app/hot", "after")
	path := filepath.Join(m.DataDir, "member", "snap", "db")
	_, err := lib.Status(path)
	require.ErrorIs(t, err, snapshot.ErrInUse)
	m.Stop()

	want, err := reference.NewV3(zap.NewNop()).Status(path)
	require.NoError(t, err)
	got, err := lib.Status(path)
	require.NoError(t, err)
	require.Equal(t, snapshot.Status(want), got)
	_, err = lib.Verify(soon(t), path)
	require.ErrorIs(t, err, snapshot.ErrNoTrailer)

	c := asRoot
	c.edit = func(cfg *snapshot.RestoreConfig) { cfg.SkipHashCheck = true }
	same(t, o, c.boot(t, r, path, 1)[0], o.contents.Revision)
	results.note(r, factCopied, "yes")
}

// same fails unless m holds what the origin held at rev. With rev 0, m must hold
// nothing else.
func same(t *testing.T, o *origin, m *etcd.Member, rev int64) {
	t.Helper()
	got, err := interop.Read(soon(t), dial(t, m), rev)
	require.NoError(t, err)
	sameKeys(t, o.contents.Keys, got.Keys)
	sameKeys(t, o.contents.Compacted, got.Compacted)
	want := o.contents
	want.Keys, want.Compacted, got.Keys, got.Compacted = nil, nil, nil, nil
	require.Equal(t, want, got)
}

func sameKeys(t *testing.T, want, got []interop.Key) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.Equal(t, want[i], got[i])
	}
}

func checkUsers(t *testing.T, m *etcd.Member) {
	t.Helper()
	as := func(user, password string) (*clientv3.Client, error) {
		cfg := m.ClientConfig()
		cfg.Username, cfg.Password = user, password
		cli, err := clientv3.New(cfg)
		if err == nil {
			t.Cleanup(func() { _ = cli.Close() })
		}
		return cli, err
	}
	anonymous, err := as("", "")
	require.NoError(t, err)
	_, err = anonymous.Get(soon(t), "app/hot")
	require.ErrorIs(t, err, rpctypes.ErrUserEmpty)
	_, err = as(interop.Reader, "wrong")
	require.ErrorIs(t, err, rpctypes.ErrAuthFailed)
	reader, err := as(interop.Reader, interop.ReaderPassword)
	require.NoError(t, err)
	resp, err := reader.Get(soon(t), "app/hot")
	require.NoError(t, err)
	require.Len(t, resp.Kvs, 1)
	_, err = reader.Get(soon(t), "lease/a")
	require.ErrorIs(t, err, rpctypes.ErrPermissionDenied)
	_, err = reader.Put(soon(t), "app/hot", "mine")
	require.ErrorIs(t, err, rpctypes.ErrPermissionDenied)
}

// checkLeases records what happened to the remaining time of leases. It asks the
// restored server first: if the time continued there, no more is left than at the
// origin, which granted the lease.
func checkLeases(t *testing.T, r *etcd.Release, o *origin, cli *clientv3.Client) {
	t.Helper()
	for id, lease := range o.contents.Leases {
		is, err := cli.TimeToLive(soon(t), clientv3.LeaseID(id))
		require.NoError(t, err)
		was, err := dial(t, o.member).TimeToLive(soon(t), clientv3.LeaseID(id))
		require.NoError(t, err)
		require.Equal(t, lease.TTL, is.GrantedTTL)
		require.Less(t, was.TTL, is.TTL)
	}
	results.note(r, factLeases, "kept with their keys; each starts anew with its granted time")
}

func identity(t *testing.T, cli *clientv3.Client) *clientv3.MemberListResponse {
	t.Helper()
	resp, err := cli.MemberList(soon(t))
	require.NoError(t, err)
	return resp
}

func put(t *testing.T, cli *clientv3.Client, key, value string) (rev int64) {
	t.Helper()
	resp, err := cli.Put(soon(t), key, value)
	require.NoError(t, err)
	return resp.Header.Revision
}

// goesOn writes, reads and watches, from a restored revision on.
func goesOn(t *testing.T, cli *clientv3.Client, from int64) {
	t.Helper()
	ctx := soon(t)
	lease, err := cli.Grant(ctx, 600)
	require.NoError(t, err)
	_, err = cli.Put(ctx, "after/key", "1", clientv3.WithLease(lease.ID))
	require.NoError(t, err)
	require.Equal(t, from+2, put(t, cli, "app/hot", "after"))
	_, err = cli.Revoke(ctx, lease.ID)
	require.NoError(t, err)

	var events []string
	for resp := range cli.Watch(ctx, "a", clientv3.WithRange("b"), clientv3.WithRev(from+1)) {
		require.NoError(t, resp.Err())
		for _, e := range resp.Events {
			events = append(events, fmt.Sprintf("%d %s %s", e.Kv.ModRevision-from, e.Type, e.Kv.Key))
		}
		if len(events) >= 3 {
			break
		}
	}
	require.Equal(t, []string{"1 PUT after/key", "2 PUT app/hot", "3 DELETE after/key"}, events)
	resp, err := cli.Get(ctx, "app/hot", clientv3.WithRev(from+2))
	require.NoError(t, err)
	require.Equal(t, "after", string(resp.Kvs[0].Value))
}

// join adds a member to a running cluster and waits until it has caught up.
func join(t *testing.T, cli *clientv3.Client, members []*etcd.Member) *etcd.Member {
	t.Helper()
	cfg := members[0].Config
	cfg.Name, cfg.Join = "joined", true
	cfg.DataDir = strings.TrimSuffix(cfg.DataDir, members[0].Name) + cfg.Name
	cfg.PeerURL = peerURL(t, "http", "127.0.0.1")
	cfg.InitialCluster += "," + cfg.Name + "=" + cfg.PeerURL

	rev := put(t, cli, "after/before joining", "1")
	ctx := soon(t)
	for {
		// A cluster accepts no further member in its first seconds: it reports
		// itself healthy once its members have been connected for a while.
		_, err := cli.MemberAdd(ctx, []string{cfg.PeerURL})
		if err == nil {
			break
		}
		require.True(t, errors.Is(err, rpctypes.ErrUnhealthy) || errors.Is(err, rpctypes.ErrMemberNotEnoughStarted), "%v", err)
		select {
		case <-ctx.Done():
			require.NoError(t, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
	m := start(t, cfg)
	ready(t, m)
	caughtUp(t, m, rev)
	return m
}

// caughtUp waits until m itself holds rev.
func caughtUp(t *testing.T, m *etcd.Member, rev int64) {
	t.Helper()
	cli := dial(t, m)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		st, err := cli.Status(soon(t), m.ClientURL)
		require.NoError(c, err)
		require.GreaterOrEqual(c, st.Header.Revision, rev)
	}, patience, 50*time.Millisecond)
}

// saveAgain saves from a restored member: the snapshot of the running restored
// cluster must pass too.
func saveAgain(t *testing.T, m *etcd.Member) (path string) {
	t.Helper()
	path = m.DataDir + ".again"
	require.NoError(t, lib.Save(soon(t), m.ClientConfig(), path))
	_, err := lib.Verify(soon(t), path)
	require.NoError(t, err)
	return path
}
