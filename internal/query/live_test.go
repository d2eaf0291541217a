package query_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/query"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// live is a running member, and the database that should answer as it does.
type live struct {
	*snaptest.Etcd
	db *query.Database
	kv clientv3.KV // of db
}

func openDB(tb testing.TB, path string) *query.Database {
	tb.Helper()
	db, err := query.Open(tb.Context(), path, nil)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, db.Close()) })
	return db
}

func newLive(t *testing.T, e *snaptest.Etcd, path string) *live {
	t.Helper()
	db := openDB(t, path)
	return &live{e, db, clientv3.NewKVFromKVClient(query.Client{DB: db}, nil)}
}

func save(t *testing.T, e *snaptest.Etcd) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "snapshot.db")
	require.NoError(t, snapshot.New().Save(t.Context(), e.ClientConfig(), path))
	return path
}

func saved(t *testing.T, e *snaptest.Etcd) *live {
	t.Helper()
	return newLive(t, e, save(t, e))
}

// restored boots what a restore of a snapshot makes.
func restored(t *testing.T, path string, edit func(*snapshot.RestoreConfig)) *snaptest.Etcd {
	t.Helper()
	cfg := apitest.Config(path, filepath.Join(t.TempDir(), "data"))
	edit(&cfg)
	require.NoError(t, apitest.Quick().Restore(cfg))
	return snaptest.Start(t, snaptest.From(cfg.OutputDataDir, ""), snaptest.With(func(c *snaptest.Config) { c.Name = cfg.Name }))
}

func compact(t *testing.T, e *snaptest.Etcd, rev int64) {
	t.Helper()
	_, err := e.Client().Compact(t.Context(), rev, clientv3.WithCompactPhysical())
	require.NoError(t, err)
}

// current is the revision of a member.
func current(t *testing.T, e *snaptest.Etcd) int64 {
	t.Helper()
	resp, err := e.Client().Get(t.Context(), "k")
	require.NoError(t, err)
	return resp.Header.Revision
}

func randomKey(rng *rand.Rand) string { return fmt.Sprintf("k/%c/%d", 'a'+rng.IntN(4), rng.IntN(30)) }

// fill writes n random transactions.
func fill(t *testing.T, rng *rand.Rand, e *snaptest.Etcd, n int) {
	t.Helper()
	ctx, cli := t.Context(), e.Client()
	lease, err := cli.Grant(ctx, 3600)
	require.NoError(t, err)
	value := func() string { return fmt.Sprintf("%x", snaptest.Opaque(rng.IntN(150))) }
	for range n {
		key := randomKey(rng)
		switch rng.IntN(10) {
		case 0:
			_, err = cli.Delete(ctx, key)
		case 1:
			_, err = cli.Delete(ctx, key[:3], clientv3.WithRange(key))
		case 2:
			_, err = cli.Put(ctx, key, value(), clientv3.WithLease(lease.ID))
		case 3:
			_, err = cli.Txn(ctx).Then(clientv3.OpPut("k/x", value()), clientv3.OpPut(key, value()), clientv3.OpDelete("k/y")).Commit()
		default:
			_, err = cli.Put(ctx, key, value())
		}
		require.NoError(t, err)
	}
}

// fillMany writes n keys in few transactions.
func fillMany(t *testing.T, e *snaptest.Etcd, n int, value string) {
	t.Helper()
	var ops []clientv3.Op
	for i := range n {
		ops = append(ops, clientv3.OpPut(fmt.Sprintf("k/%c/%04d", 'a'+i%4, i), value))
		if len(ops) == 128 || i == n-1 {
			_, err := e.Client().Txn(t.Context()).Then(ops...).Commit()
			require.NoError(t, err)
			ops = nil
		}
	}
}

// databases are members in many states, each with the database that was saved or
// restored.
var databases = []struct {
	name string
	make func(t *testing.T, rng *rand.Rand) *live
}{
	{"never written", func(t *testing.T, _ *rand.Rand) *live { return saved(t, snaptest.Start(t)) }},
	{"never compacted", func(t *testing.T, rng *rand.Rand) *live {
		e := snaptest.Start(t)
		fill(t, rng, e, 200)
		return saved(t, e)
	}},
	{"compacted", func(t *testing.T, rng *rand.Rand) *live {
		e := snaptest.Start(t)
		fill(t, rng, e, 150)
		compact(t, e, 70)
		fill(t, rng, e, 150)
		return saved(t, e)
	}},
	{"small windows", func(t *testing.T, rng *rand.Rand) *live {
		e := snaptest.Start(t)
		fill(t, rng, e, 150)
		compact(t, e, 70)
		fill(t, rng, e, 150)
		l := saved(t, e)
		l.db.SetMaxWindow(1500)
		return l
	}},
	{"compacted at a tombstone", func(t *testing.T, rng *rand.Rand) *live {
		e := snaptest.Start(t)
		fill(t, rng, e, 100)
		put(t, e, "k/a/1")
		remove(t, e, "k/a/1")
		rev := current(t, e)
		fill(t, rng, e, 100)
		compact(t, e, rev)
		return saved(t, e)
	}},
	{"compacted at the latest revision", func(t *testing.T, rng *rand.Rand) *live {
		e := snaptest.Start(t)
		fill(t, rng, e, 200)
		compact(t, e, current(t, e))
		return saved(t, e)
	}},
	{"all deleted and compacted", func(t *testing.T, rng *rand.Rand) *live {
		e := snaptest.Start(t)
		fill(t, rng, e, 100)
		put(t, e, "k/a/1")
		remove(t, e, "k", clientv3.WithPrefix())
		compact(t, e, current(t, e))
		return saved(t, e)
	}},
	{"bumped", func(t *testing.T, rng *rand.Rand) *live {
		return bumped(t, rng, 0)
	}},
	{"bumped and written", func(t *testing.T, rng *rand.Rand) *live {
		return bumped(t, rng, 100)
	}},
	{"in a compaction", func(t *testing.T, rng *rand.Rand) *live {
		return compacting(t, rng, 200, 100)
	}},
	{"in a second compaction", func(t *testing.T, rng *rand.Rand) *live {
		return compacting(t, rng, 200, 20)
	}},
	{"in a compaction at the latest revision", func(t *testing.T, rng *rand.Rand) *live {
		return compacting(t, rng, 0, 150)
	}},
	{"many keys", func(t *testing.T, rng *rand.Rand) *live {
		e := snaptest.Start(t)
		fillMany(t, e, 2000, "one")
		fill(t, rng, e, 50)
		fillMany(t, e, 1000, "two")
		return saved(t, e)
	}},
}

func put(t *testing.T, e *snaptest.Etcd, key string, opts ...clientv3.OpOption) {
	t.Helper()
	_, err := e.Client().Put(t.Context(), key, "value of "+key, opts...)
	require.NoError(t, err)
}

func remove(t *testing.T, e *snaptest.Etcd, key string, opts ...clientv3.OpOption) {
	t.Helper()
	resp, err := e.Client().Delete(t.Context(), key, opts...)
	require.NoError(t, err)
	require.Positive(t, resp.Deleted)
}

// bumped is a member that was restored at a later revision, with n transactions
// since then.
func bumped(t *testing.T, rng *rand.Rand, n int) *live {
	t.Helper()
	e := snaptest.Start(t)
	fill(t, rng, e, 100)
	path := save(t, e)
	e.Stop()
	e = restored(t, path, func(c *snapshot.RestoreConfig) { c.RevisionBump, c.MarkCompacted = 1000, true })
	if n > 0 {
		fill(t, rng, e, n)
	}
	return saved(t, e)
}

// compacting is a database in which a compaction at rev has removed n records. The
// member has been restored from it and ends the compaction as it boots.
func compacting(t *testing.T, rng *rand.Rand, rev int64, n int) *live {
	t.Helper()
	db := snaptest.NewDB()
	for i := range 300 {
		switch key := randomKey(rng); rng.IntN(5) {
		case 0:
			db.Delete(key)
		case 1:
			db.Txn(func() { db.Put("k/x", fmt.Sprint(i)).Put(key, "in a transaction").Delete("k/y") })
		default:
			db.Put(key, fmt.Sprint(i))
		}
		if i == 100 && n < 50 {
			db.Compact(db.Revision() - 10)
		}
	}
	if rev == 0 {
		rev = db.Revision()
	}
	path := db.CompactPartially(rev, n).Write(t, filepath.Join(t.TempDir(), "snapshot.db"), false)
	return newLive(t, restored(t, path, func(c *snapshot.RestoreConfig) { c.SkipHashCheck = true }), path)
}

// requireSame compares what was answered, whole responses or errors. Of the outer
// header only the revision counts: the rest is about the member.
func requireSame(t *testing.T, want, got proto.Message, wantErr, gotErr error, name string) {
	t.Helper()
	if wantErr != nil {
		if !errors.As(wantErr, new(rpctypes.EtcdError)) {
			require.Equal(t, status.Convert(wantErr).Proto().String(), status.Convert(gotErr).Proto().String(), name)
			return
		}
		require.ErrorIs(t, gotErr, wantErr, name)
		return
	}
	require.NoError(t, gotErr, name)
	h := want.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader()
	h.ClusterId, h.MemberId, h.RaftTerm = 0, 0, 0
	if !proto.Equal(want, got) {
		require.Equal(t, prototext.Format(want), prototext.Format(got), name)
		require.Fail(t, "differ in what is not printed", name)
	}
}
