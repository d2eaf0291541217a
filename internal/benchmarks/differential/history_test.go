package differential_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/coreos/go-semver/semver"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/pkg/v3/traceutil"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.uber.org/zap"
)

var silent = zap.NewNop()

// history is a random life of etcd's own key-value store, without a server. The
// same seed gives the same keys, revisions and compactions.
type history struct {
	seed  uint64
	steps int
	// compactEvery is the number of steps between compactions; 0 for none.
	compactEvery int
	// unfinished leaves a last compaction in the middle.
	unfinished bool
	versioned  bool // the storage version is recorded, as since etcd 3.6
}

func randomHistory(seed uint64) history {
	rng := rand.New(rand.NewPCG(seed, 1))
	return history{
		seed:         seed,
		steps:        rng.IntN(120),
		compactEvery: []int{0, 0, 7, 30}[rng.IntN(4)],
		unfinished:   rng.IntN(4) == 0,
		versioned:    rng.IntN(2) == 0,
	}
}

func (h history) String() string {
	return fmt.Sprintf("seed %d, %d steps, compacted every %d, unfinished %t, versioned %t",
		h.seed, h.steps, h.compactEvery, h.unfinished, h.versioned)
}

// write writes a snapshot, without trailer, of the store at the end of its life.
func (h history) write(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	cfg := backend.DefaultBackendConfig(silent)
	cfg.Path = filepath.Join(dir, "live")
	cfg.UnsafeNoFsync = true
	cfg.BatchInterval = time.Hour // commits come from the history, not from a timer
	cfg.MmapSize = 64 << 20
	be := backend.New(cfg)
	rng := rand.New(rand.NewPCG(h.seed, 2))
	kv := mvcc.NewStore(silent, be, &lease.FakeLessor{}, mvcc.StoreConfig{
		CompactionBatchLimit: 1 + rng.IntN(20), CompactionSleepInterval: time.Nanosecond,
	})
	for step := range h.steps {
		txn := kv.Write(traceutil.TODO())
		for range 1 + rng.IntN(4) {
			key := randomKey(rng)
			switch rng.IntN(8) {
			case 0, 1:
				txn.DeleteRange(key, nil)
			case 2:
				txn.DeleteRange(key, append(bytes.Clone(key), 0xff))
			default:
				txn.Put(key, randomValue(rng), lease.LeaseID(rng.IntN(3)))
			}
		}
		txn.End()
		if rng.IntN(6) == 0 {
			kv.Commit()
		}
		if h.compactEvery > 0 && step%h.compactEvery == h.compactEvery-1 {
			done, err := kv.Compact(traceutil.TODO(), 1+rng.Int64N(kv.Rev()))
			if !errors.Is(err, mvcc.ErrCompacted) {
				require.NoError(t, err)
				<-done
			}
		}
	}
	if h.versioned {
		tx := be.BatchTx()
		tx.LockOutsideApply()
		schema.UnsafeSetStorageVersion(tx, semver.New("3.7.0"))
		tx.Unlock()
	}
	latest := kv.Rev()
	require.NoError(t, kv.Close())
	be.ForceCommit()

	path := filepath.Join(dir, "db")
	f, err := os.Create(path)
	require.NoError(t, err)
	snap := be.Snapshot()
	_, err = snap.WriteTo(f)
	require.NoError(t, errors.Join(err, snap.Close(), f.Close(), be.Close()))
	if h.unfinished {
		compactHalf(t, path, 1+rng.Int64N(latest))
	}
	return path
}

// compactHalf leaves the database as a compaction at revision rev does that was
// interrupted: scheduled, and the first half of what it removes removed.
func compactHalf(t testing.TB, path string, rev int64) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, NoFreelistSync: true})
	require.NoError(t, err)
	err = db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(schema.Key.Name())
		last := make(map[string][]byte) // user key -> its last revision key up to rev
		var obsolete [][]byte
		err := b.ForEach(func(k, v []byte) error {
			if mvcc.BytesToRev(k).Main > rev {
				return nil
			}
			user := userKey(v)
			if old, ok := last[user]; ok {
				obsolete = append(obsolete, old)
			}
			last[user] = bytes.Clone(k)
			return nil
		})
		if err != nil {
			return err
		}
		for _, k := range last {
			if mvcc.IsTombstone(k) {
				obsolete = append(obsolete, k)
			}
		}
		sortKeys(obsolete)
		for _, k := range obsolete[:(len(obsolete)+1)/2] {
			if err := b.Delete(k); err != nil {
				return err
			}
		}
		scheduled := mvcc.RevToBytes(mvcc.Revision{Main: rev}, mvcc.NewRevBytes())
		return tx.Bucket(schema.Meta.Name()).Put(schema.ScheduledCompactKeyName, scheduled)
	})
	require.NoError(t, errors.Join(err, db.Close()))
}

// randomKey draws from few keys, so that they get versions and are deleted and
// created again; a few are long.
func randomKey(rng *rand.Rand) []byte {
	key := fmt.Appendf(nil, "/registry/%c/%02d", 'a'+rng.IntN(5), rng.IntN(12))
	switch rng.IntN(40) {
	case 0:
		key = append(key, bytes.Repeat([]byte("long"), rng.IntN(2000))...)
	case 1:
		key = key[:1] // deletes every other one when it is a prefix
	}
	return key
}

func randomValue(rng *rand.Rand) []byte {
	size := rng.IntN(300)
	switch rng.IntN(30) {
	case 0:
		size = 0
	case 1:
		size = rng.IntN(40_000) // overflow pages
	}
	v := make([]byte, size)
	for i := range v {
		v[i] = byte(rng.Uint32())
	}
	return v
}
