package differential_test

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	peersave "go.etcd.io/etcd/client/v3/snapshot"
	peer "go.etcd.io/etcd/etcdutl/v3/snapshot"
)

func TestStatusOfRandomHistories(t *testing.T) {
	const seeds = 300
	distinct := make(map[snapshot.Status]bool)
	for seed := range uint64(seeds) {
		h := randomHistory(seed)
		t.Run(h.String(), func(t *testing.T) {
			path := h.write(t)
			st := requireSameStatus(t, path)
			verified, err := snapshot.New().Verify(t.Context(), withTrailer(t, path))
			require.NoError(t, err)
			require.Equal(t, st, verified)
			distinct[st] = true
		})
	}
	require.Greater(t, len(distinct), seeds*9/10, "the histories are all alike")
}

// synthetic databases, by what is special in them.
var synthetic = map[string]func() *snaptest.DB{
	"fresh member":          snaptest.NewDB,
	"nothing but meta":      func() *snaptest.DB { return without(snaptest.NewDB(), snaptest.Buckets[:9]...) },
	"no key bucket":         func() *snaptest.DB { return snaptest.NewDB().DropBucket("key") },
	"one key":               func() *snaptest.DB { return snaptest.NewDB().Put("a", "b") },
	"versions of one key":   func() *snaptest.DB { return versions(500) },
	"tombstones":            func() *snaptest.DB { return churn(400) },
	"only tombstones":       func() *snaptest.DB { return churn(1).Delete("churn/000").Compact(3) },
	"compacted":             func() *snaptest.DB { return churn(600).Compact(300) },
	"mid-compaction, early": func() *snaptest.DB { return churn(600).CompactPartially(500, 3) },
	"mid-compaction, late":  func() *snaptest.DB { return churn(600).CompactPartially(500, 200) },
	"bumped":                func() *snaptest.DB { return churn(100).Bump(1_000_000_000) },
	"bumped twice":          func() *snaptest.DB { return churn(100).Bump(7).Put("after", "x").Bump(1 << 40) },
	"several sub revisions": func() *snaptest.DB {
		db := snaptest.NewDB()
		for i := range 50 {
			db.Txn(func() {
				for j := range 20 {
					db.Put(fmt.Sprintf("txn/%d", j), strings.Repeat("v", i))
				}
				db.Delete("txn/3")
			})
		}
		return db
	},
	"leases": func() *snaptest.DB {
		db := snaptest.NewDB()
		for i := range int64(300) {
			db.Lease(i+1, 60).PutLease(fmt.Sprintf("leased/%d", i), "v", i+1)
		}
		return db
	},
	"users and roles": func() *snaptest.DB {
		db := snaptest.NewDB().AuthUser("root", "root").AuthRole("root", "\x00", "\x00").AuthEnable(3)
		for i := range 100 {
			db.AuthRole(fmt.Sprintf("role%d", i), "k", "l").AuthUser(fmt.Sprintf("user%d", i), fmt.Sprintf("role%d", i))
		}
		return db
	},
	"alarm and members": func() *snaptest.DB {
		return snaptest.NewDB().Alarm(1, etcdserverpb.AlarmType_CORRUPT).
			Member(2, "second", "http://127.0.0.1:1").Member(3, "third", "http://127.0.0.1:2").RemovedMember(3)
	},
	"inline and paged buckets": func() *snaptest.DB {
		db := snaptest.NewDB().Raw("cluster", "small", "inline")
		for i := range 2000 {
			db.Raw("authUsers", fmt.Sprintf("user %d", i), strings.Repeat("x", i%50))
		}
		return db
	},
	"unknown bucket": func() *snaptest.DB { return snaptest.NewDB().Raw("zz future", "k", "v").EmptyBucket("0 empty") },
	"nested buckets": func() *snaptest.DB {
		return churn(10).NestedBucket(map[string]string{"k": "v"}, "outer", "middle", "inner").
			Raw("outer", "a", "1").Raw("outer", "z", "2")
	},
	"no version":            func() *snaptest.DB { return churn(20).StorageVersion("") },
	"version 3.6":           func() *snaptest.DB { return churn(20).StorageVersion("3.6.0") },
	"values over a page":    func() *snaptest.DB { return large(300, 5_000) },
	"values of several MiB": func() *snaptest.DB { return large(2, 3<<20) },
	"values of all sizes": func() *snaptest.DB {
		db := snaptest.NewDB()
		for n := range 150 {
			db.Put(fmt.Sprintf("size/%d", n%97), strings.Repeat("s", n*n))
		}
		return db
	},
	"keys longer than a page": func() *snaptest.DB {
		db := snaptest.NewDB()
		for i := range 40 {
			db.Put(strings.Repeat("long key ", 1000)+fmt.Sprint(i), "v")
			db.Raw("authRoles", strings.Repeat("long bucket key ", 1900)+fmt.Sprint(i), "v")
		}
		return db
	},
	"empty values and a zero byte": func() *snaptest.DB { return snaptest.NewDB().Put("\x00", "").Put("e", "").Put("\xff\xfe", "\x00") },
	"three levels of pages":        func() *snaptest.DB { return large(8_000, 10) },
	"key spaces that interleave":   func() *snaptest.DB { return churn(5000).Large(2000, 200).Compact(4000) },
}

func without(db *snaptest.DB, buckets ...string) *snaptest.DB {
	for _, name := range buckets {
		db.DropBucket(name)
	}
	return db
}

func versions(n int) *snaptest.DB {
	db := snaptest.NewDB()
	for i := range n {
		db.Put("the key", strings.Repeat("v", i))
	}
	return db
}

// churn puts, deletes and puts again.
func churn(n int) *snaptest.DB {
	db := snaptest.NewDB()
	for i := range n {
		key := fmt.Sprintf("churn/%03d", i*7%101)
		if i%3 == 2 {
			db.Delete(key)
		} else {
			db.Put(key, strings.Repeat("c", i%200))
		}
	}
	return db
}

func large(n, valueSize int) *snaptest.DB { return snaptest.NewDB().Large(n, valueSize) }

// layouts are the ways in which the same content can lie in a file.
var layouts = map[string]struct {
	arrange func(*snaptest.DB) *snaptest.DB
	trailer bool
}{
	"copied":          {func(db *snaptest.DB) *snaptest.DB { return db }, false},
	"streamed":        {func(db *snaptest.DB) *snaptest.DB { return db }, true},
	"16 KiB pages":    {func(db *snaptest.DB) *snaptest.DB { return db.PageSize(16 << 10) }, false},
	"64 KiB pages":    {func(db *snaptest.DB) *snaptest.DB { return db.PageSize(64 << 10) }, true},
	"freelist":        {func(db *snaptest.DB) *snaptest.DB { return db.WithFreelist(true) }, false},
	"fragmented":      {func(db *snaptest.DB) *snaptest.DB { return db.Fragment() }, true},
	"fragmented list": {func(db *snaptest.DB) *snaptest.DB { return db.Fragment().WithFreelist(true).PageSize(16 << 10) }, false},
}

func TestStatusOfSyntheticDatabases(t *testing.T) {
	for _, content := range slices.Sorted(maps.Keys(synthetic)) {
		build := synthetic[content]
		t.Run(content, func(t *testing.T) {
			for _, name := range slices.Sorted(maps.Keys(layouts)) {
				layout := layouts[name]
				if strings.HasPrefix(name, "fragmented") && (content == "no key bucket" || content == "nothing but meta") {
					continue // it is the key bucket that is fragmented
				}
				t.Run(name, func(t *testing.T) {
					db := layout.arrange(build())
					path := db.Write(t, filepath.Join(t.TempDir(), "db"), layout.trailer)
					st := requireSameStatus(t, path)
					require.Equal(t, db.Revision(), st.Revision)
					require.Equal(t, db.LiveKeys(), st.TotalKey)
				})
			}
		})
	}
}

func TestStatusOfMalformedRecords(t *testing.T) {
	for name, db := range map[string]*snaptest.DB{
		"short revision key":  churn(10).Raw("key", "\xffshort", "v"),
		"long revision key":   churn(10).Raw("key", "\xff"+strings.Repeat("x", 18), "v"),
		"record that is none": churn(10).Raw("key", "\x7f\x00\x00\x00\x00\x00\x00\x00_\x00\x00\x00\x00\x00\x00\x00\x00", "\x0a\x7f"),
	} {
		t.Run(name, func(t *testing.T) {
			path := db.Write(t, filepath.Join(t.TempDir(), "db"), false)
			_, err := peer.NewV3(silent).Status(path)
			require.Error(t, err)
			st, err := snapshot.New().Status(path)
			require.ErrorIs(t, err, snapshot.ErrCorrupt)
			require.Zero(t, st)
		})
	}
}

// etcd's Status crashes where there is no meta bucket.
func TestStatusWithoutMeta(t *testing.T) {
	path := without(churn(10), "meta").Write(t, filepath.Join(t.TempDir(), "db"), false)
	require.Panics(t, func() { _, _ = peer.NewV3(silent).Status(path) })
	st, err := snapshot.New().Status(path)
	require.NoError(t, err)
	require.Equal(t, churn(10).LiveKeys(), st.TotalKey)
	require.Empty(t, st.Version)
}

// A real server's database, as it is streamed and as it lies in the directory.
func TestStatusAndRestoreOfServerDatabases(t *testing.T) {
	e := snaptest.Start(t)
	ctx, cli := t.Context(), e.Client()
	liveServer(t, ctx, cli)
	require.Eventually(t, func() bool { // the server sets it a moment after it serves
		st, err := cli.Status(ctx, e.Endpoint())
		return err == nil && st.StorageVersion != ""
	}, time.Minute, 10*time.Millisecond)

	dir := t.TempDir()
	ours, theirs := filepath.Join(dir, "ours.db"), filepath.Join(dir, "theirs.db")
	require.NoError(t, snapshot.New().Save(ctx, e.ClientConfig(), ours))
	_, err := peersave.SaveWithVersion(ctx, silent, e.ClientConfig(), theirs)
	require.NoError(t, err)
	// Each request makes the server commit, so that the meta pages differ.
	require.Equal(t, dumpBuckets(t, theirs), dumpBuckets(t, ours))
	require.Equal(t, requireSameStatus(t, theirs), requireSameStatus(t, ours))

	st := requireSameStatus(t, ours)
	require.NotZero(t, st.TotalKey)
	require.Equal(t, "3.7.0", st.Version)
	verified, err := snapshot.New().Verify(ctx, ours)
	require.NoError(t, err)
	require.Equal(t, st, verified)

	e.Stop()
	live := filepath.Join(e.DataDir, "member", "snap", "db")
	requireSameStatus(t, live)

	for _, rc := range restoreCases {
		t.Run(rc.name, func(t *testing.T) {
			requireSameRestore(t, rc.configs(t, ours)[0])
		})
	}
	t.Run("copied out of the data directory", func(t *testing.T) {
		for _, cfg := range restoreCases[1].configs(t, live) {
			cfg.SkipHashCheck = true
			requireSameRestore(t, cfg)
		}
	})
}

// liveServer gives a server a bit of everything.
func liveServer(t *testing.T, ctx context.Context, cli *clientv3.Client) {
	t.Helper()
	ls, err := cli.Grant(ctx, 3600)
	require.NoError(t, err)
	var last int64
	for i := range 200 {
		key := fmt.Sprintf("live/%03d", i%60)
		resp, err := cli.Put(ctx, key, strings.Repeat("v", i*i), clientv3.WithLease([]clientv3.LeaseID{0, ls.ID}[i%2]))
		require.NoError(t, err)
		last = resp.Header.Revision
		if i%7 == 0 {
			_, err = cli.Delete(ctx, key)
			require.NoError(t, err)
		}
	}
	_, err = cli.Txn(ctx).Then(clientv3.OpPut("txn/a", "1"), clientv3.OpPut("txn/b", "2"), clientv3.OpDelete("live/001")).Commit()
	require.NoError(t, err)
	_, err = cli.Compact(ctx, last-50, clientv3.WithCompactPhysical())
	require.NoError(t, err)
	_, err = cli.RoleAdd(ctx, "root")
	require.NoError(t, err)
	_, err = cli.UserAdd(ctx, "root", "secret")
	require.NoError(t, err)
	_, err = cli.UserGrantRole(ctx, "root", "root")
	require.NoError(t, err)
	_, err = cli.RoleGrantPermission(ctx, "root", "live/", "live0", clientv3.PermissionType(clientv3.PermReadWrite))
	require.NoError(t, err)
	// The server writes its storage version a moment after its start.
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		st, err := cli.Status(ctx, cli.Endpoints()[0])
		require.NoError(c, err)
		require.Equal(c, "3.7.0", st.StorageVersion)
	}, time.Minute, 10*time.Millisecond)
}
