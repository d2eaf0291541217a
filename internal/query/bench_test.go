package query_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"etcd.example/snapshot/internal/query"
	"etcd.example/snapshot/internal/snaptest"
)

const (
	benchKeys    = 50_000
	benchRecords = 70_000
)

func benchKey(i int) string { return fmt.Sprintf("/registry/ns-%03d/%06d", i%500, i) }

// benchDB has some 90 MB. Up to 100 keys are below one prefix, in no order.
func benchDB(b *testing.B) string {
	b.Helper()
	rng, db := rand.New(rand.NewPCG(3, 4)), snaptest.NewDB()
	for range benchRecords {
		db.Put(benchKey(rng.IntN(benchKeys)), string(snaptest.Opaque(600+rng.IntN(700))))
	}
	return db.Compact(3).Write(b, filepath.Join(b.TempDir(), "db"), false)
}

func BenchmarkOpen(b *testing.B) {
	path := benchDB(b)
	b.ReportAllocs()
	for b.Loop() {
		db, err := query.Open(b.Context(), path, nil)
		require.NoError(b, err)
		require.NoError(b, db.Close())
	}
}

// One key, with the database open.
func BenchmarkGet(b *testing.B) {
	kv := clientv3.NewKVFromKVClient(query.Client{DB: openDB(b, benchDB(b))}, nil)
	i := 0
	for b.Loop() {
		i++
		_, err := kv.Get(b.Context(), benchKey(i%benchKeys))
		require.NoError(b, err)
	}
}

// The keys below a prefix, with the database open, and with bbolt: a cursor, and
// each record decoded.
func BenchmarkPrefix(b *testing.B) {
	path := benchDB(b)
	b.Run("ours", func(b *testing.B) {
		kv := clientv3.NewKVFromKVClient(query.Client{DB: openDB(b, path)}, nil)
		i := 0
		for b.Loop() {
			i++ // another prefix each time, because the last keys are kept
			resp, err := kv.Get(b.Context(), fmt.Sprintf("/registry/ns-%03d/", i%500), clientv3.WithPrefix())
			require.NoError(b, err)
			require.NotEmpty(b, resp.Kvs)
		}
	})
	b.Run("bbolt", func(b *testing.B) {
		i := 0
		for b.Loop() {
			i++
			require.NotEmpty(b, prefixByHand(b, path, fmt.Sprintf("/registry/ns-%03d/", i%500)))
		}
	})
}

func prefixByHand(b *testing.B, path, prefix string) map[string]*mvccpb.KeyValue {
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	require.NoError(b, err)
	defer func() { require.NoError(b, db.Close()) }()
	live := map[string]*mvccpb.KeyValue{}
	require.NoError(b, db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("key")).ForEach(func(revision, record []byte) error {
			kv := &mvccpb.KeyValue{}
			if err := proto.Unmarshal(record, kv); err != nil || !bytes.HasPrefix(kv.Key, []byte(prefix)) {
				return err
			}
			if live[string(kv.Key)] = kv; len(revision) == 18 {
				delete(live, string(kv.Key))
			}
			return nil
		})
	}))
	return live
}

// The hash of the latest revision, the opening included, and with etcd's storage on
// a copy, which it changes.
func BenchmarkHashKV(b *testing.B) {
	path := benchDB(b)
	db := openDB(b, path)
	want, err := db.HashKV(b.Context(), 0, 0)
	require.NoError(b, err)
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			db, err := query.Open(b.Context(), path, nil)
			require.NoError(b, err)
			got, err := db.HashKV(b.Context(), 0, 0)
			require.NoError(b, err)
			require.Equal(b, want, got)
			require.NoError(b, db.Close())
		}
	})
	b.Run("etcd", func(b *testing.B) {
		content, err := os.ReadFile(path)
		require.NoError(b, err)
		dir := b.TempDir()
		for b.Loop() {
			b.StopTimer()
			own := filepath.Join(dir, "copy")
			require.NoError(b, os.WriteFile(own, content, 0o600))
			b.StartTimer()
			require.Equal(b, want.Hash, hashWithEtcd(b, own))
		}
	})
}

func hashWithEtcd(b *testing.B, path string) uint32 {
	lg := zap.NewNop()
	be := backend.NewDefaultBackend(lg, path)
	store := mvcc.NewStore(lg, be, &lease.FakeLessor{}, mvcc.StoreConfig{})
	hash, _, err := store.HashStorage().HashByRev(0)
	require.NoError(b, err)
	require.NoError(b, store.Close())
	require.NoError(b, be.Close())
	return hash.Hash
}
