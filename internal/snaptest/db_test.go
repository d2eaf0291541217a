package snaptest_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/pkg/v3/traceutil"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.uber.org/zap"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/protobuf/proto"

	"etcd.example/snapshot/internal/snaptest"
)

func history() *snaptest.DB {
	db := snaptest.NewDB()
	for i := range 200 {
		db.Put(fmt.Sprintf("k%03d", i%50), fmt.Sprintf("value %d", i))
		if i%7 == 0 {
			db.Delete(fmt.Sprintf("k%03d", i%50))
		}
	}
	return db.Txn(func() {
		db.Put("txn/a", "1")
		db.Put("txn/b", string(make([]byte, 10000)))
		db.Delete("k001")
	})
}

func TestDBAgreesWithReaders(t *testing.T) {
	full := map[string]func() *snaptest.DB{
		"empty":   snaptest.NewDB,
		"history": history,
		"compacted": func() *snaptest.DB {
			return history().Compact(150)
		},
		"compacted at a tombstone": func() *snaptest.DB {
			db := snaptest.NewDB().Put("a", "1").Put("b", "1").Delete("a")
			return db.Compact(db.Revision()).Put("a", "2").Delete("b")
		},
		"mid-compaction": func() *snaptest.DB {
			return history().CompactPartially(180, 20)
		},
		"large":      func() *snaptest.DB { return history().Large(3000, 500) },
		"fragmented": func() *snaptest.DB { return history().Large(500, 300).Fragment() },
		"fragmented with freelist, 16 KiB pages": func() *snaptest.DB {
			return history().Fragment().WithFreelist(true).PageSize(16 << 10)
		},
		"64 KiB pages": func() *snaptest.DB { return history().Large(1000, 200).PageSize(64 << 10) },
		"everything else": func() *snaptest.DB {
			db := history().Lease(7, 60).PutLease("leased", "x", 7)
			return db.Alarm(1, etcdserverpb.AlarmType_NOSPACE).
				AuthUser("root", "root").AuthRole("root", "\x00", "\x00").AuthEnable(3).
				Member(2, "gone", "http://localhost:1").RemovedMember(2).
				Bucket("extra", map[string]string{"a": "b"}).
				NestedBucket(map[string]string{"x": "y"}, "outer", "inner").
				StorageVersion("")
		},
	}
	for name, build := range full {
		t.Run(name, func(t *testing.T) {
			db := build()
			path := db.Write(t, filepath.Join(t.TempDir(), "db"), true)
			checkStream(t, path)
			checkRecords(t, db, path)
			checkStore(t, db, path)
			require.Equal(t, build().Bytes(t, true), db.Bytes(t, true), "two builds of the same calls")
		})
	}
}

// checkStream requires a file as a server streams it.
func checkStream(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	body, trailer := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	sum := sha256.Sum256(body)
	require.Equal(t, sum[:], trailer)
	m := snaptest.ParseMeta(body, 0)
	require.EqualValues(t, len(body), m.HighWater*uint64(m.PageSize))
	require.NoFileExists(t, path+".building")
}

// checkRecords reads the file with bbolt alone.
func checkRecords(t *testing.T, db *snaptest.DB, path string) {
	t.Helper()
	b, err := bbolt.Open(path, 0o400, &bbolt.Options{ReadOnly: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Close()) }()
	require.NoError(t, b.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			require.NoError(t, err)
		}
		for _, name := range snaptest.Buckets {
			require.NotNil(t, tx.Bucket([]byte(name)), name)
		}
		live := make(map[string]bool)
		records, revision := 0, int64(0)
		err := tx.Bucket([]byte("key")).ForEach(func(k, v []byte) error {
			var kv mvccpb.KeyValue
			require.NoError(t, proto.Unmarshal(v, &kv))
			rev := mvcc.BytesToBucketKey(k)
			records, revision = records+1, rev.Main
			live[string(kv.Key)] = !mvcc.IsTombstone(k)
			if !mvcc.IsTombstone(k) && len(v) > 0 {
				require.Equal(t, rev.Main, kv.ModRevision)
			}
			return nil
		})
		n := 0
		for _, alive := range live {
			if alive {
				n++
			}
		}
		require.Equal(t, db.Records(), records)
		require.Equal(t, db.Revision(), revision)
		require.Equal(t, db.LiveKeys(), n)
		return err
	}))
}

// checkStore reads the keys with etcd's own store, which also finishes a scheduled
// compaction.
func checkStore(t *testing.T, db *snaptest.DB, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	path += ".store"
	require.NoError(t, os.WriteFile(path, data[:len(data)-sha256.Size], 0o600))
	be := backend.NewDefaultBackend(zap.NewNop(), path)
	defer func() { require.NoError(t, be.Close()) }()
	store := mvcc.NewStore(zap.NewNop(), be, &lease.FakeLessor{}, mvcc.StoreConfig{})
	defer func() { require.NoError(t, store.Close()) }()
	got, err := store.Range(context.Background(), []byte{0}, []byte{0xff}, mvcc.RangeOptions{})
	require.NoError(t, err)
	want := db.Live()
	require.Len(t, got.KVs, len(want))
	for i := range want {
		require.True(t, proto.Equal(want[i], got.KVs[i]), "got %v, want %v", got.KVs[i], want[i])
	}
}

// TestKeysLikeEtcd makes the same changes with the model and with etcd.
func TestKeysLikeEtcd(t *testing.T) {
	path := snaptest.NewDB().Write(t, filepath.Join(t.TempDir(), "db"), false)
	be := backend.NewDefaultBackend(zap.NewNop(), path)
	store := mvcc.NewStore(zap.NewNop(), be, &lease.FakeLessor{}, mvcc.StoreConfig{})
	put := func(k, v string) { store.Put([]byte(k), []byte(v), lease.NoLease) }
	remove := func(k string) { store.DeleteRange([]byte(k), nil) }
	model := snaptest.NewDB()
	both := func(put func(k, v string), remove func(k string), txn func(func(put func(k, v string), remove func(k string)))) {
		put("a", "1")
		put("b", "1")
		put("a", "2")
		remove("a")
		remove("a")
		remove("never there")
		put("a", "3")
		txn(func(put func(k, v string), remove func(k string)) {
			put("c", "1")
			remove("b")
			put("d", "")
		})
		txn(func(_ func(k, v string), remove func(k string)) { remove("never there") })
		put("e", "1")
	}
	both(put, remove, func(f func(put func(k, v string), remove func(k string))) {
		tx := store.Write(traceutil.TODO())
		f(func(k, v string) { tx.Put([]byte(k), []byte(v), lease.NoLease) }, func(k string) { tx.DeleteRange([]byte(k), nil) })
		tx.End()
	})
	both(func(k, v string) { model.Put(k, v) }, func(k string) { model.Delete(k) },
		func(f func(put func(k, v string), remove func(k string))) {
			model.Txn(func() { f(func(k, v string) { model.Put(k, v) }, func(k string) { model.Delete(k) }) })
		})
	require.Equal(t, store.Rev(), model.Revision())
	store.Commit()
	require.NoError(t, store.Close())
	require.NoError(t, be.Close())
	require.Equal(t, entries(t, path, "key"), entries(t, model.Write(t, filepath.Join(t.TempDir(), "db"), false), "key"))
}

// TestCompactLikeEtcd compacts the same history with the model and with etcd.
func TestCompactLikeEtcd(t *testing.T) {
	for _, rev := range []int64{1, 2, 3, 100, 157, 231} {
		path := history().Write(t, filepath.Join(t.TempDir(), "db"), false)
		be := backend.NewDefaultBackend(zap.NewNop(), path)
		store := mvcc.NewStore(zap.NewNop(), be, &lease.FakeLessor{}, mvcc.StoreConfig{})
		done, err := store.Compact(traceutil.TODO(), rev)
		require.NoError(t, err)
		<-done
		store.Commit()
		require.NoError(t, store.Close())
		require.NoError(t, be.Close())

		model := history().Compact(rev).Write(t, filepath.Join(t.TempDir(), "db"), false)
		require.Equal(t, entries(t, path, "key"), entries(t, model, "key"), "compacted at %d", rev)
		require.Equal(t, entries(t, path, "meta"), entries(t, model, "meta"), "compacted at %d", rev)
	}
}

func entries(t *testing.T, path, bucket string) []string {
	t.Helper()
	b, err := bbolt.Open(path, 0o400, &bbolt.Options{ReadOnly: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Close()) }()
	var all []string
	require.NoError(t, b.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucket)).ForEach(func(k, v []byte) error {
			all = append(all, fmt.Sprintf("%x=%x", k, v))
			return nil
		})
	}))
	return all
}

func TestDBShapes(t *testing.T) {
	t.Run("bump", func(t *testing.T) {
		db := history()
		before, keys := db.Revision(), db.LiveKeys()
		db.Bump(1000)
		require.Equal(t, before+1000, db.Revision())
		require.Equal(t, keys+1, db.LiveKeys(), "the bump reads as the empty key")
		path := db.Write(t, filepath.Join(t.TempDir(), "db"), true)
		checkRecords(t, db, path)
	})
	t.Run("partial compaction", func(t *testing.T) {
		write := func(db *snaptest.DB) []string {
			return entries(t, db.Write(t, filepath.Join(t.TempDir(), "db"), false), "key")
		}
		before, after := write(history()), write(history().CompactPartially(180, 20))
		whole := write(history().Compact(180))
		require.Len(t, after, len(before)-20)
		require.Greater(t, len(after), len(whole))
		require.Equal(t, before[len(before)-100:], after[len(after)-100:], "removals start at the lowest revision")
	})
	t.Run("page size and freelist", func(t *testing.T) {
		m := snaptest.ParseMeta(history().PageSize(16<<10).Bytes(t, true), 0)
		require.EqualValues(t, 16<<10, m.PageSize)
		require.EqualValues(t, uint64(1<<64-1), m.Freelist)
		data := history().WithFreelist(true).Bytes(t, true)
		m = snaptest.ParseMeta(data, 0)
		require.EqualValues(t, 4096, m.PageSize)
		require.EqualValues(t, snaptest.FreelistFlag, snaptest.ParsePage(data, m.Freelist).Flags)
	})
	t.Run("malformed and dropped", func(t *testing.T) {
		path := snaptest.NewDB().Raw("key", "short", "x").DropBucket("alarm").
			Write(t, filepath.Join(t.TempDir(), "db"), false)
		require.Equal(t, []string{fmt.Sprintf("%x=%x", "short", "x")}, entries(t, path, "key"))
		b, err := bbolt.Open(path, 0o400, &bbolt.Options{ReadOnly: true})
		require.NoError(t, err)
		defer func() { require.NoError(t, b.Close()) }()
		require.NoError(t, b.View(func(tx *bbolt.Tx) error {
			require.Nil(t, tx.Bucket([]byte("alarm")))
			return nil
		}))
	})
	t.Run("fragmented has free pages out of order", func(t *testing.T) {
		tight := history().Large(500, 300).Bytes(t, true)
		loose := history().Large(500, 300).Fragment().Bytes(t, true)
		require.Greater(t, len(loose), len(tight)*5/4)
		var leaves []uint64
		for _, p := range snaptest.Reachable(loose) {
			if p.Flags == snaptest.LeafFlag {
				leaves = append(leaves, p.ID)
			}
		}
		require.False(t, slices.IsSorted(leaves))
	})
	t.Run("large", func(t *testing.T) {
		db := snaptest.NewDB().Large(2000, 1000)
		data := db.Bytes(t, true)
		require.Equal(t, 2000, db.LiveKeys())
		require.Greater(t, len(data), 2000*1000)
		require.Less(t, len(data), 2000*1000*3/2)
	})
	t.Run("password", func(t *testing.T) {
		u := entries(t, snaptest.NewDB().AuthUser("root").Write(t, filepath.Join(t.TempDir(), "db"), false), "authUsers")
		require.Len(t, u, 1)
		require.NoError(t, bcrypt.CompareHashAndPassword([]byte(snaptest.PasswordHash), []byte(snaptest.Password)))
	})
	t.Run("cannot be written", func(t *testing.T) {
		dir := t.TempDir()
		require.Error(t, snaptest.NewDB().WriteFile(filepath.Join(dir, "none", "db"), true))
		require.ErrorContains(t, snaptest.NewDB().Raw("", "a", "b").WriteFile(filepath.Join(dir, "db"), true), `bucket ""`)
		require.ErrorContains(t, snaptest.NewDB().Raw("extra", "", "b").WriteFile(filepath.Join(dir, "db"), true), `entry ""`)
		require.Empty(t, snaptest.TreeList(t, dir))
	})
}
