package bootstrap_test

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap/snappb"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"etcd.example/snapshot/internal/bootstrap"
	"etcd.example/snapshot/internal/snaptest/short"
)

// randomCluster is made of all that a URLsMap can hold, also of what no user
// could write down in one string.
type randomCluster struct {
	name, token string
	members     types.URLsMap
}

// maxMembers is two more than the largest cluster that etcd recommends.
const maxMembers = 9

var (
	nameParts = []string{
		"infra", "m", "0", "7", "ü", "名前", "\u2028", "\U0001f980", "<&>", `"`, `\`, "'", "/", "=", " ", "\t", "\x00", "\x7f", "\xff", "\xed\xa0\x80",
	}
	urlSchemes = []string{"http", "https", "unix", "unixs", "HTTP"}
	urlHosts   = []string{
		"127.0.0.1:2380", "[::1]:2380", "[fe80::1%25eth0]:1", "localhost:0", "Host.Example:02380", "ü.example:1", "h-1.svc.cluster.local:65535",
		"user:p%40ss@h:1", "h:1?a=<b>&c=%20", "h:1#f", "a.sock:1", "/run/a/../b.sock", "h:", "",
	}
)

func randomText(r *rand.Rand) string {
	parts := r.IntN(4)
	if r.IntN(20) == 0 {
		parts = r.IntN(600)
	}
	var b strings.Builder
	for range parts {
		b.WriteString(nameParts[r.IntN(len(nameParts))])
	}
	return b.String()
}

// randomURLs returns URLs in no order, some of them twice, or as etcd parses
// them, which is in order.
func randomURLs(t *testing.T, r *rand.Rand) types.URLs {
	var urls types.URLs
	for range 1 + r.IntN(5) {
		host := urlHosts[r.IntN(len(urlHosts))]
		if r.IntN(3) > 0 {
			host = fmt.Sprintf("10.%d.%d.%d:%d", r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(65536))
		}
		u, err := url.Parse(urlSchemes[r.IntN(len(urlSchemes))] + "://" + host)
		require.NoError(t, err)
		urls = append(urls, *u)
		if r.IntN(8) == 0 {
			urls = append(urls, *u)
		}
	}
	if r.IntN(2) == 0 {
		urls.Sort()
	}
	return urls
}

func newRandomCluster(t *testing.T, r *rand.Rand) randomCluster {
	c := randomCluster{token: randomText(r), members: types.URLsMap{}}
	for range 1 + r.IntN(maxMembers) {
		// A name that comes twice has the URLs of the second.
		c.name = randomText(r)
		c.members[c.name] = randomURLs(t, r)
	}
	return c
}

func (c randomCluster) String() string {
	return fmt.Sprintf("%q of %q, token %q", c.name, c.members, c.token)
}

// What etcd's own functions make of thousands of clusters is what ours make, to
// the byte: ids, the members' records, WAL and .snap file. Of one in a hundred
// etcd writes the files, for which it waits for the disk.
func TestRandomClustersAreEtcds(t *testing.T) {
	const eachWritten = 100
	count := short.Or(4000, 1500)
	shrinkSegments(t)
	file, err := os.Create(filepath.Join(t.TempDir(), bootstrap.WALName))
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	r := rand.New(rand.NewPCG(13, 185))
	sizes := map[int]int{}
	for i := range count {
		c := newRandomCluster(t, r)
		rc, refused := membership.NewClusterFromURLsMap(zap.NewNop(), c.token, c.members)
		ours, err := bootstrap.New(c.name, c.token, c.members)
		if refused != nil {
			require.ErrorContains(t, err, "have the same id", c)
			sizes[0]++
			continue
		}
		require.NoError(t, err, c)
		require.Equal(t, rc.ID(), ours.ClusterID(), c)
		require.Equal(t, rc.MemberByName(c.name).ID, ours.LocalID(), c)
		require.Equal(t, membersOf(rc), ours.Members(), c)
		want := bootStateOf(t, rc, c.name)
		requireSameWAL(t, want, ours, file)
		requireSameSnap(t, rc, want, ours)
		if i%eachWritten == 0 {
			requireSameFiles(t, rc, want, ours)
		}
		sizes[len(c.members)]++
	}
	// All kinds have come up, among them clusters that etcd refuses.
	for members := range maxMembers + 1 {
		require.Positive(t, sizes[members], "clusters of %d members", members)
	}
}

// requireSameWAL has etcd's decoder read our WAL, and wants the records of s. It
// overwrites file.
func requireSameWAL(t *testing.T, s bootState, ours *bootstrap.Cluster, file *os.File) {
	t.Helper()
	type record struct {
		typ  int64
		data string
	}
	encoded := func(typ int64, m proto.Message) record {
		data, err := proto.Marshal(m)
		require.NoError(t, err)
		return record{typ, string(data)}
	}
	want := []record{
		{wal.CrcType, ""},
		{wal.MetadataType, string(s.metadata)},
		encoded(wal.SnapshotType, &walpb.Snapshot{Index: proto.Uint64(0), Term: proto.Uint64(0)}),
	}
	for _, e := range s.entries {
		want = append(want, encoded(wal.EntryType, e))
	}
	want = append(want, encoded(wal.StateType, s.hard), encoded(wal.SnapshotType, s.snapshot()))

	var log bytes.Buffer
	require.NoError(t, ours.WriteWAL(&log))
	require.NoError(t, file.Truncate(0))
	_, err := file.WriteAt(log.Bytes(), 0)
	require.NoError(t, err)
	_, err = file.Seek(0, io.SeekStart)
	require.NoError(t, err)
	dec := wal.NewDecoder(fileutil.NewFileReader(file))
	var got []record
	for range want {
		var rec walpb.Record
		require.NoError(t, dec.Decode(&rec))
		got = append(got, record{rec.GetType(), string(rec.GetData())})
	}
	require.Equal(t, want, got)
	require.EqualValues(t, log.Len(), dec.LastOffset())
}

// requireSameSnap wants the content that etcd's Snapshotter writes.
func requireSameSnap(t *testing.T, rc *membership.RaftCluster, s bootState, ours *bootstrap.Cluster) {
	t.Helper()
	data, err := proto.Marshal(s.raftSnapshot(v2StoreByID(t, rc)))
	require.NoError(t, err)
	crc := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	want, err := proto.Marshal(&snappb.Snapshot{Crc: &crc, Data: data})
	require.NoError(t, err)
	name, got, err := ours.Snap()
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("%016x-%016x.snap", s.hard.GetTerm(), s.hard.GetCommit()), name)
	require.True(t, bytes.Equal(want, got), "got %q, want %q", got, want)
}

// requireSameFiles has etcd write the files.
func requireSameFiles(t *testing.T, rc *membership.RaftCluster, s bootState, ours *bootstrap.Cluster) {
	t.Helper()
	name, content, err := ours.Snap()
	require.NoError(t, err)
	theirs, err := os.ReadFile(filepath.Join(etcdSnap(t, v2StoreByID(t, rc), s), name))
	require.NoError(t, err)
	require.Equal(t, string(theirs), string(content))

	var log bytes.Buffer
	require.NoError(t, ours.WriteWAL(&log))
	theirs, err = os.ReadFile(filepath.Join(etcdWAL(t, s), bootstrap.WALName))
	require.NoError(t, err)
	require.Equal(t, string(theirs[:log.Len()]), log.String())
	require.Empty(t, bytes.Trim(theirs[log.Len():], "\x00"))
}

// shrinkSegments makes etcd preallocate little, until the test has ended.
func shrinkSegments(t *testing.T) {
	size := wal.SegmentSizeBytes
	wal.SegmentSizeBytes = 1 << 20
	t.Cleanup(func() { wal.SegmentSizeBytes = size })
}

// The v2 store remembers the last thousand members that were added.
func TestSnapOfManyMembersIsEtcds(t *testing.T) {
	for _, n := range []int{999, 1000, 1001, 2345} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			members := types.URLsMap{}
			for i := range n {
				members[fmt.Sprint(i)] = types.MustNewURLs([]string{fmt.Sprintf("http://h:%d", i)})
			}
			rc, err := membership.NewClusterFromURLsMap(zap.NewNop(), "", members)
			require.NoError(t, err)
			ours, err := bootstrap.New("0", "", members)
			require.NoError(t, err)
			requireSameSnap(t, rc, bootStateOf(t, rc, "0"), ours)
		})
	}
}
