// Package differential_test compares this module's package snapshot with etcd's
// own: the same files in, the same results and the same bytes out.
package differential_test

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"etcd.example/snapshot"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	peer "go.etcd.io/etcd/etcdutl/v3/snapshot"
	"google.golang.org/protobuf/proto"
)

// requireSameStatus requires that both succeed and agree in every field. The
// conversion does not compile unless the fields are the same.
func requireSameStatus(t testing.TB, path string) snapshot.Status {
	t.Helper()
	want, err := peer.NewV3(silent).Status(path)
	require.NoError(t, err, "etcd's Status")
	got, err := snapshot.New().Status(path)
	require.NoError(t, err)
	require.Equal(t, snapshot.Status(want), got)
	return got
}

// withTrailer returns a copy of a database file with the trailer that a stream
// has.
func withTrailer(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	sum := sha256.Sum256(data)
	out := filepath.Join(t.TempDir(), "snapshot.db")
	require.NoError(t, os.WriteFile(out, append(data, sum[:]...), 0o600))
	return out
}

func userKey(record []byte) string {
	var kv mvccpb.KeyValue
	if err := proto.Unmarshal(record, &kv); err != nil {
		return ""
	}
	return string(kv.Key)
}

func sortKeys(keys [][]byte) { slices.SortFunc(keys, bytes.Compare) }
