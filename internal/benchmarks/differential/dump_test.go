package differential_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// restored is everything that a restored member consists of, in a form that can be
// compared.
type restored struct {
	Files   []string // paths, those of a separate WAL directory last
	Buckets []bucketDump

	WALSegments  []string // name, size and the bytes before the zeros
	WALMetadata  string
	HardState    string
	Entries      []string
	WALSnapshots []string

	SnapMetadata string
	SnapData     any      // the v2 store, without its indexes
	SnapIndexes  []uint64 // those indexes, sorted
}

type bucketDump struct {
	Name     string
	Sequence uint64
	Records  []string // key and value, quoted
}

// dump reads a restored member. walDir is empty unless it is separate.
func dump(t testing.TB, dataDir, walDir string) restored {
	t.Helper()
	var r restored
	r.Files = listFiles(t, dataDir)
	if walDir == "" {
		walDir = filepath.Join(dataDir, "member", "wal")
	} else {
		r.Files = append(r.Files, listFiles(t, walDir)...)
	}
	snapDir := filepath.Join(dataDir, "member", "snap")
	r.Buckets = dumpBuckets(t, filepath.Join(snapDir, "db"))
	r.dumpWAL(t, walDir)

	sn, err := snap.New(silent, snapDir).Load()
	require.NoError(t, err)
	r.SnapMetadata = protoText(t, sn.Metadata)
	require.NoError(t, json.Unmarshal(sn.Data, &r.SnapData))
	r.SnapIndexes = takeIndexes(t, r.SnapData, nil)
	slices.Sort(r.SnapIndexes)
	return r
}

func listFiles(t testing.TB, dir string) []string {
	t.Helper()
	var files []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		files = append(files, rel)
		return err
	}))
	return files
}

func dumpBuckets(t testing.TB, path string) []bucketDump {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	require.NoError(t, err)
	var dumps []bucketDump
	err = db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			return fmt.Errorf("check: %w", err)
		}
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			d := bucketDump{Name: string(name), Sequence: b.Sequence()}
			err := b.ForEach(func(k, v []byte) error {
				d.Records = append(d.Records, fmt.Sprintf("%q = %q", k, v))
				return nil
			})
			dumps = append(dumps, d)
			return err
		})
	})
	require.NoError(t, errors.Join(err, db.Close()), path)
	return dumps
}

func (r *restored) dumpWAL(t testing.TB, dir string) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	require.NoError(t, err)
	for _, path := range segments {
		info, err := os.Stat(path)
		require.NoError(t, err)
		head := readHead(t, path, 1<<20)
		require.Less(t, len(head), 1<<20, "records beyond what is read")
		r.WALSegments = append(r.WALSegments, fmt.Sprintf("%s %d %x", filepath.Base(path), info.Size(), head))
	}
	records, err := wal.ValidSnapshotEntries(silent, dir)
	require.NoError(t, err)
	for _, s := range records {
		r.WALSnapshots = append(r.WALSnapshots, protoText(t, s))
	}
	w, err := wal.OpenForRead(silent, dir, &walpb.Snapshot{})
	require.NoError(t, err)
	metadata, hardState, entries, err := w.ReadAll()
	require.NoError(t, err)
	_ = w.Close() // always fails: opened for reading, it holds no directory
	var md etcdserverpb.Metadata
	require.NoError(t, proto.Unmarshal(metadata, &md))
	r.WALMetadata = fmt.Sprintf("%s %x", protoText(t, &md), metadata)
	r.HardState = protoText(t, hardState)
	for _, e := range entries {
		var cc raftpb.ConfChange
		require.NoError(t, proto.Unmarshal(e.Data, &cc))
		r.Entries = append(r.Entries, fmt.Sprintf("%s: %s %s", protoText(t, e), protoText(t, &cc), cc.Context))
	}
}

// readHead returns the first n bytes of a file without the zeros they end in.
func readHead(t testing.TB, path string, n int64) []byte {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	head, err := io.ReadAll(io.LimitReader(f, n))
	require.NoError(t, errors.Join(err, f.Close()))
	return bytes.TrimRight(head, "\x00")
}

// protoText is canonical, which protojson alone is not: it varies its spaces.
func protoText(t testing.TB, m proto.Message) string {
	t.Helper()
	text, err := protojson.Marshal(m)
	require.NoError(t, err)
	var v any
	require.NoError(t, json.Unmarshal(text, &v))
	return jsonText(t, v)
}

// takeIndexes zeroes the created and modified indexes in a v2 store and returns
// them. It also sorts the list of events: etcd adds the members in the order of a
// map, so only the sets can be compared.
func takeIndexes(t testing.TB, node any, taken []uint64) []uint64 {
	t.Helper()
	switch n := node.(type) {
	case map[string]any:
		for k, v := range n {
			index, ok := v.(float64)
			if ok && (strings.EqualFold(k, "createdIndex") || strings.EqualFold(k, "modifiedIndex")) {
				taken = append(taken, uint64(index))
				n[k] = 0.0
				continue
			}
			taken = takeIndexes(t, v, taken)
		}
	case []any:
		for _, v := range n {
			taken = takeIndexes(t, v, taken)
		}
		slices.SortFunc(n, func(a, b any) int { return strings.Compare(jsonText(t, a), jsonText(t, b)) })
	}
	return taken
}

func jsonText(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	return string(text)
}
