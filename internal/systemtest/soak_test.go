package systemtest_test

// Snapshots of an etcd under load are sound, several at a time, and the memory of
// the process stays flat. A run takes three seconds; an hour with
// go test ./internal/systemtest -run TestSoak -soak 1h -timeout 0

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
)

var soakFor = flag.Duration("soak", 3*time.Second, "how long snapshots are taken from an etcd under load")

const (
	soakSavers = 3
	// bootEvery: every so many snapshots of each saver are booted.
	bootEvery = 5
	// compactBehind is how many revisions a compaction leaves.
	compactBehind = 2000
)

// soak is what the savers share.
type soak struct {
	m      apitest.Manager
	cli    *clientv3.Client
	origin clientv3.Config
	shared string // a path to which all of them save

	// compacting keeps the server from compacting a revision that a saver is
	// going to ask for.
	compacting sync.RWMutex
	// quiet is held by whoever wants all savers to pause.
	quiet sync.RWMutex

	mu           sync.Mutex
	saved, boots int
}

// saver takes one snapshot after the other.
type saver struct {
	*soak
	dir     string
	peerURL string
	turn    int
}

// once saves, verifies, restores, boots now and then, and compares each time
// with what the server says of that revision.
func (s *saver) once(ctx context.Context) (err error) {
	s.quiet.RLock()
	defer s.quiet.RUnlock()
	s.turn++
	path := filepath.Join(s.dir, "snap.db")
	st, want, hash, err := s.save(ctx, path)
	if err != nil {
		return err
	}
	cfg := apitest.Config(path, filepath.Join(s.dir, "data"))
	cfg.PeerURLs, cfg.InitialCluster = []string{s.peerURL}, "m0="+s.peerURL
	if s.turn%2 == 0 {
		cfg.OutputWALDir = filepath.Join(s.dir, "wal")
	}
	if err := s.restore(ctx, cfg); err != nil {
		return err
	}
	got, err := liveKeys(filepath.Join(cfg.OutputDataDir, "member", "snap", "db"))
	if err != nil {
		return err
	}
	if err := sameKeys(want.Kvs, got); err != nil {
		return fmt.Errorf("restored at revision %d: %w", st.Revision, err)
	}
	booted := 0
	if s.turn%bootEvery == 1 {
		if err := s.boot(ctx, cfg, st, want, hash); err != nil {
			return fmt.Errorf("boot: %w", err)
		}
		booted = 1
	}
	s.mu.Lock()
	s.saved++
	s.boots += booted
	s.mu.Unlock()
	return s.removeOutput()
}

// save takes a snapshot, and asks the server for the same revision.
func (s *saver) save(ctx context.Context, path string) (st snapshot.Status, kvs *clientv3.GetResponse, hash *clientv3.HashKVResponse, err error) {
	s.compacting.RLock()
	defer s.compacting.RUnlock()
	if s.turn%4 == 0 {
		if err := s.m.Save(ctx, s.origin, s.shared); err != nil {
			return st, nil, nil, err
		}
	}
	if err := s.m.Save(ctx, s.origin, path); err != nil {
		return st, nil, nil, err
	}
	if st, err = s.m.Verify(ctx, path); err != nil {
		return st, nil, nil, err
	}
	if again, err := s.m.StatusContext(ctx, path); err != nil || again != st {
		return st, nil, nil, fmt.Errorf("status %+v (%w), verify %+v", again, err, st)
	}
	if kvs, err = s.cli.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(st.Revision)); err != nil {
		return st, nil, nil, fmt.Errorf("get at revision %d: %w", st.Revision, err)
	}
	if st.TotalKey != len(kvs.Kvs) {
		return st, nil, nil, fmt.Errorf("got %d keys, want %d", st.TotalKey, len(kvs.Kvs))
	}
	hash, err = s.cli.HashKV(ctx, s.origin.Endpoints[0], st.Revision)
	return st, kvs, hash, err
}

func (s *saver) restore(ctx context.Context, cfg snapshot.RestoreConfig) (err error) {
	if s.turn%3 != 0 {
		return s.m.RestoreContext(ctx, cfg)
	}
	f, err := os.Open(cfg.SnapshotPath)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	cfg.SnapshotPath = ""
	return s.m.RestoreFrom(ctx, f, cfg)
}

// boot starts an etcd on what was restored and compares hash and keys.
func (s *saver) boot(ctx context.Context, cfg snapshot.RestoreConfig, st snapshot.Status, want *clientv3.GetResponse, hash *clientv3.HashKVResponse) (err error) {
	endpoint, stop, err := startMember(member{
		Name: cfg.Name, DataDir: cfg.OutputDataDir, WALDir: cfg.OutputWALDir, PeerURL: s.peerURL, InitialCluster: cfg.InitialCluster,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	cli, err := clientv3.New(clientOf(endpoint))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cli.Close()) }()
	got, err := cli.HashKV(ctx, endpoint, st.Revision)
	if err != nil {
		return err
	}
	if got.Hash != hash.Hash || got.CompactRevision != hash.CompactRevision {
		return fmt.Errorf("hash at revision %d: got %x compacted at %d, want %x compacted at %d",
			st.Revision, got.Hash, got.CompactRevision, hash.Hash, hash.CompactRevision)
	}
	kvs, err := cli.Get(ctx, "", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	if kvs.Header.Revision != st.Revision {
		return fmt.Errorf("got revision %d, want %d", kvs.Header.Revision, st.Revision)
	}
	if err := sameKeys(want.Kvs, kvs.Kvs); err != nil {
		return err
	}
	_, err = cli.Put(ctx, "life", "goes on")
	return err
}

// removeOutput requires that the directory holds only what was asked for, and removes it.
func (s *saver) removeOutput() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !slices.Contains([]string{"snap.db", "data", "wal"}, e.Name()) {
			return fmt.Errorf("left behind: %s", e.Name())
		}
		if err := os.RemoveAll(filepath.Join(s.dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// liveKeys reads the live keys out of a database file.
func liveKeys(path string) (_ []*mvccpb.KeyValue, err error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	live := map[string]*mvccpb.KeyValue{}
	err = db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("key")).ForEach(func(k, v []byte) error {
			kv := &mvccpb.KeyValue{}
			if err := proto.Unmarshal(v, kv); err != nil {
				return err
			}
			if delete(live, string(kv.Key)); len(k) == 17 {
				live[string(kv.Key)] = kv
			}
			return nil
		})
	})
	var kvs []*mvccpb.KeyValue
	for _, key := range slices.Sorted(maps.Keys(live)) {
		kvs = append(kvs, live[key])
	}
	return kvs, err
}

func sameKeys(want, got []*mvccpb.KeyValue) error {
	if len(got) != len(want) {
		return fmt.Errorf("got %d keys, want %d", len(got), len(want))
	}
	for i := range want {
		if !proto.Equal(want[i], got[i]) {
			return fmt.Errorf("got %v, want %v", got[i], want[i])
		}
	}
	return nil
}

// An etcd is written to while snapshots are taken from it, several at a time.
// Each is verified, restored, some of them booted, and compared with what the
// server answers for its revision. Memory, goroutines and open files stay flat.
func TestSoak(t *testing.T) {
	short.Skip(t, "takes snapshots of an etcd under load for seconds")
	snaptest.NoLeaks(t)
	endpoint, stop, err := startMember(member{DataDir: filepath.Join(t.TempDir(), "etcd"), Load: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, stop()) }()
	cli, err := clientv3.New(clientOf(endpoint))
	require.NoError(t, err)
	defer func() { require.NoError(t, cli.Close()) }()
	_, err = cli.Put(t.Context(), "first", "")
	require.NoError(t, err)
	sharedDir := t.TempDir()
	all := &soak{m: snapshot.New(), cli: cli, origin: clientOf(endpoint), shared: filepath.Join(sharedDir, "snap.db")}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	end := time.Now().Add(*soakFor)
	var wg sync.WaitGroup
	for _, peerURL := range snaptest.FreePeerURLs(t, soakSavers) {
		s := &saver{soak: all, dir: t.TempDir(), peerURL: peerURL}
		wg.Go(func() {
			// Each at least so often that it has booted and saved to the shared path.
			for s.turn < bootEvery+1 || time.Now().Before(end) {
				if err := s.once(ctx); err != nil {
					if ctx.Err() == nil {
						t.Errorf("snapshot %d: %v", s.turn, err)
					}
					cancel()
					return
				}
			}
		})
	}
	saversDone := make(chan struct{})
	go func() { wg.Wait(); close(saversDone) }()

	watch := newUsageWatch(t, all)
	tick := time.NewTicker(max(*soakFor/60, time.Second))
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-tick.C:
			watch.look()
			if err := all.compact(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
				cancel()
			}
		case <-saversDone:
			running = false
		}
	}
	watch.look()
	require.Equal(t, []string{"snap.db"}, snaptest.TreeList(t, sharedDir))
	_, err = all.m.Verify(t.Context(), all.shared)
	require.NoError(t, err)
	watch.requireFlat()
	t.Logf("%d snapshots saved, verified, restored and compared, %d of them booted", all.saved, all.boots)
}

// compact forgets old revisions, so that the database stays of one size.
func (s *soak) compact(ctx context.Context) error {
	s.compacting.Lock()
	defer s.compacting.Unlock()
	now, err := s.cli.Get(ctx, "none")
	if err != nil || now.Header.Revision <= compactBehind {
		return err
	}
	_, err = s.cli.Compact(ctx, now.Header.Revision-compactBehind)
	return err
}
