package systemtest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/querytest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// readerFiles is the number of damaged files that a Reader is tried on.
func readerFiles() int {
	if raceDetector {
		return *damaged / 20
	}
	return *damaged / 2
}

// A damaged snapshot is refused, or it opens, and then answers each question twice
// the same, if only with ErrCorrupt.
func TestReaderOfDamagedFiles(t *testing.T) {
	snaptest.NoLeaks(t)
	rng := rand.New(rand.NewPCG(15, 9))
	bases := damageBases(t)
	n, path := short.Or(readerFiles(), 100), filepath.Join(snaptest.MemoryDir(t), "db")
	opened, answers, refusals := 0, 0, 0
	for i := range n {
		content, desc := snaptest.Mutate(rng, append([]byte(nil), bases[i%len(bases)]...))
		require.NoError(t, os.WriteFile(path, content, 0o600))
		r, err := snapshot.New().Open(t.Context(), path)
		if err != nil {
			require.ErrorIs(t, err, snapshot.ErrCorrupt, desc)
			require.Nil(t, r, desc)
			continue
		}
		opened++
		queries := querytest.Reader(r).Queries("key-ab", "key")
		for j := range 8 {
			refused, err := querytest.AskTwice(t.Context(), queries[(i+7*j)%len(queries)])
			require.NoError(t, err, desc)
			if answers++; errors.Is(refused, snapshot.ErrCorrupt) {
				refusals++
			}
		}
		require.NoError(t, r.Close(), desc)
	}
	t.Logf("%d of %d damaged files opened; %d of %d answers are ErrCorrupt", opened, n, refusals, answers)
	require.Greater(t, n-opened, n/4)
	require.Greater(t, opened, n/20)
}

// The file changes under the Reader, one bit at a time. What it reads again, it
// checks again.
func TestBitsFlippedUnderReader(t *testing.T) {
	snaptest.NoLeaks(t)
	content := tinySnapshot(t)
	path := filepath.Join(snaptest.MemoryDir(t), "db")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, w.Close()) }()
	const sampleStep = 1511
	step := sampleStep
	if *every {
		step = 1
	}
	refusals := 0
	for bit := 0; bit < 8*len(content); bit += step {
		r, err := snapshot.New().Open(t.Context(), path)
		require.NoError(t, err)
		queries := querytest.Reader(r).Queries("key3", "key")
		flip := func(b byte) {
			_, err := w.WriteAt([]byte{b}, int64(bit/8))
			require.NoError(t, err)
		}
		flip(content[bit/8] ^ 1<<(bit%8))
		for i := range queries { // each is the first one now and then: what it keeps serves the others
			refused, err := querytest.AskTwice(t.Context(), queries[(i+bit)%len(queries)])
			require.NoError(t, err, "bit %d", bit)
			if errors.Is(refused, snapshot.ErrCorrupt) {
				refusals++
			}
		}
		flip(content[bit/8])
		require.NoError(t, r.Close())
	}
	t.Logf("%d answers are ErrCorrupt", refusals)
	require.NotZero(t, refusals)
}

// A file that is cut under the Reader, or in the middle of an iteration, is
// ErrCorrupt where something is missing. One that is replaced still answers.
func TestFileChangesUnderReader(t *testing.T) {
	snaptest.NoLeaks(t)
	content := snaptest.NewDB().Large(3000, 300).Bytes(t, true)
	other := snaptest.NewDB().Put("large/other", "x").Bytes(t, true)
	for name, tt := range map[string]struct {
		change   func(path string) error
		corrupt  bool // for all that reads the whole key space
		replaced bool
	}{
		"emptied":  {func(path string) error { return os.Truncate(path, 0) }, true, false},
		"cut":      {func(path string) error { return os.Truncate(path, int64(len(content)/2)) }, true, false},
		"cut last": {func(path string) error { return os.Truncate(path, int64(len(content)-33)) }, false, false},
		"longer":   {func(path string) error { return os.Truncate(path, int64(2*len(content))) }, false, true},
		"another":  {func(path string) error { return os.WriteFile(path, other, 0o600) }, true, false},
		"replaced": {func(path string) error {
			return errors.Join(os.WriteFile(path+".new", other, 0o600), os.Rename(path+".new", path))
		}, false, true},
		"removed": {os.Remove, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(snaptest.MemoryDir(t), "db")
			open := func() querytest.Target {
				require.NoError(t, os.WriteFile(path, content, 0o600))
				r, err := snapshot.New().Open(t.Context(), path)
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, r.Close()) })
				return querytest.Reader(r)
			}
			for i, q := range open().Queries("large/000000002000", "large/") {
				want, _, err := querytest.Ask(t.Context(), q)
				require.NoError(t, err)
				q := open().Queries("large/000000002000", "large/")[i]
				require.NoError(t, tt.change(path))
				got, refused, err := querytest.Ask(t.Context(), q)
				require.NoError(t, err)
				if tt.replaced {
					require.Equal(t, want, got, q.Name)
				}
				if q.Name == "range" || q.Name == "records" || q.Name == "hashkv at a revision" {
					require.Equal(t, tt.corrupt, errors.Is(refused, snapshot.ErrCorrupt), "%s: %v", q.Name, refused)
				}
			}
			requireCutDuringIteration(t, open(), tt.change, path, tt.corrupt)
		})
	}
}

// requireCutDuringIteration changes the file once an iteration has begun.
func requireCutDuringIteration(t *testing.T, target querytest.Target, change func(string) error, path string, corrupt bool) {
	t.Helper()
	n := 0
	var last error
	for kv, err := range target.Records(context.Background(), 0) {
		if last = err; err != nil {
			break
		}
		require.NotNil(t, kv)
		if n++; n == 10 {
			require.NoError(t, change(path))
		}
	}
	require.Equal(t, corrupt, errors.Is(last, snapshot.ErrCorrupt), "%v", last)
	if !corrupt {
		require.NoError(t, last)
		require.Equal(t, 3000, n)
	}
	_, _, err := querytest.Ask(t.Context(), querytest.Query{Name: "get after that", Run: func(ctx context.Context) (string, error) {
		resp, err := target.KV.Get(ctx, "large/", clientv3.WithPrefix())
		return fmt.Sprint(resp), err
	}})
	require.NoError(t, err)
}

// A record that was found and is no longer there is ErrCorrupt, and no answer.
func TestRecordVanishesUnderReader(t *testing.T) {
	content := snaptest.NewDB().Put("key/a", string(snaptest.Opaque(2000))).Put("key/b", "c").Bytes(t, true)
	path := filepath.Join(t.TempDir(), "db")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	r := openReader(t, path)
	all := func(opts ...clientv3.OpOption) error {
		_, err := r.KV().Get(t.Context(), "key/", append(opts, clientv3.WithPrefix())...)
		return err
	}
	require.NoError(t, all(clientv3.WithKeysOnly()))
	last := []byte(snaptest.RevisionKey(3, 0, ""))
	require.Equal(t, 1, bytes.Count(content, last))
	require.NoError(t, os.WriteFile(path, bytes.Replace(content, last, []byte(snaptest.RevisionKey(3, 1, "")), 1), 0o600))
	err := all()
	require.ErrorIs(t, err, snapshot.ErrCorrupt)
	require.ErrorContains(t, err, "no longer there")
}
