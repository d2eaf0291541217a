package systemtest_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/querytest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// askAll asks everything twice, and counts the answers that are ErrCorrupt.
func askAll(t *testing.T, r *snapshot.Reader, key, prefix string) (corrupt int) {
	t.Helper()
	for _, q := range querytest.Reader(r).Queries(key, prefix) {
		refused, err := querytest.AskTwice(t.Context(), q)
		require.NoError(t, err)
		if errors.Is(refused, snapshot.ErrCorrupt) {
			corrupt++
		}
	}
	return corrupt
}

// claimed is a record that begins with head and goes on with zeros.
type claimed struct {
	head []byte
	size int64
}

// claimKey is a record with a key of size bytes.
func claimKey(i int, size int64) claimed {
	head := binary.AppendUvarint([]byte{0x0a}, uint64(size))
	return claimed{fmt.Appendf(head, "key/%03d", i), int64(len(head)) + size}
}

// writeClaimed writes a database with a leaf page for each record, in one piece of
// bucket "key". It takes a few pages on the disk.
func writeClaimed(t *testing.T, records ...claimed) string {
	t.Helper()
	const first = 4 // behind the pages of the two branches
	pages := func(c claimed) uint64 { return uint64((16+16+17+c.size-1)/handmadePage) + 1 }
	h := &handmade{}
	var children []entry
	id := uint64(first)
	for i, c := range records {
		children = append(children, entry{key: []byte(snaptest.RevisionKey(i+1, 0, "")), child: id})
		id += pages(c)
	}
	path := h.write(t, h.leaf(bucket("key", h.branch(children...))), id)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(int64(id)*handmadePage))
	for i, c := range records {
		b := make([]byte, 32)
		o := binary.NativeEndian
		o.PutUint64(b, children[i].child)
		o.PutUint16(b[8:], 2)
		o.PutUint16(b[10:], 1)
		o.PutUint32(b[12:], uint32(pages(c)-1))
		o.PutUint32(b[20:], 16)
		o.PutUint32(b[24:], uint32(len(children[i].key)))
		o.PutUint32(b[28:], uint32(c.size))
		_, err := f.WriteAt(append(append(b, children[i].key...), c.head...), int64(children[i].child)*handmadePage)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
	return path
}

// Keys that no etcd has: as many as a piece holds take no more memory than a few.
func TestReaderHugeKeys(t *testing.T) {
	skipUnderRace(t)
	short.Skip(t, "reads half a GB")
	const size, keys = 24 << 20, 20
	var records []claimed
	for i := range keys {
		records = append(records, claimKey(i, size))
	}
	r := openReader(t, writeClaimed(t, records...))
	require.Equal(t, keys, r.Info().TotalKey)
	peak := peakMemory(t, func() {
		n := 0
		for kv, err := range r.Range(t.Context(), "key", clientv3.WithPrefix(), clientv3.WithKeysOnly()) {
			require.NoError(t, err)
			require.Len(t, kv.Key, size)
			if n++; n == 3 {
				break
			}
		}
		require.Equal(t, 3, n)
		resp, err := r.KV().Get(t.Context(), "key", clientv3.WithPrefix(), clientv3.WithCountOnly())
		require.NoError(t, err)
		require.EqualValues(t, keys, resp.Count)
	})
	require.Less(t, peak, int64(keys*size*3/4))
}

// A key or a record of a size that nobody could have written is refused, not loaded.
func TestReaderClaimedSizes(t *testing.T) {
	for name, tt := range map[string]struct {
		c       claimed
		queries []string
	}{
		"key of 65 MiB":   {claimKey(1, 65<<20), []string{"get keys", "range", "records", "hashkv at a revision"}},
		"record of 1 GiB": {claimed{binary.AppendUvarint([]byte("\x0a\x05key/1\x2a"), 1<<30), 1<<30 + 13}, []string{"records"}},
	} {
		t.Run(name, func(t *testing.T) {
			small := claimed{[]byte("\x0a\x05key/0"), 7}
			r := openReader(t, writeClaimed(t, small, tt.c))
			peak := peakMemory(t, func() {
				for _, q := range querytest.Reader(r).Queries("key/1", "key/") {
					for _, name := range tt.queries {
						if q.Name != name {
							continue
						}
						_, refused, err := querytest.Ask(t.Context(), q)
						require.NoError(t, err)
						require.ErrorIs(t, refused, snapshot.ErrCorrupt, q.Name)
						require.Regexp(t, `of( more than)? \d+ bytes`, refused.Error())
					}
				}
			})
			require.Less(t, peak, int64(512<<20))
		})
	}
}

// A page can have 65,535 records: more than fit into one that is held, and fewer.
func TestReaderManyRecordsOnAPage(t *testing.T) {
	skipUnderRace(t)
	short.Skip(t, "looks at the heap all the time")
	for _, size := range []int{1, 40} {
		const records = 65_535
		var entries []entry
		for i := range records {
			entries = append(entries, entry{key: []byte(snaptest.RevisionKey(i+1, 0, "")), value: keyValue(fmt.Sprintf("key-%05d", i), i+1, size)})
		}
		h := &handmade{}
		path := h.write(t, h.leaf(bucket("key", h.leaf(entries...)), bucket("meta", h.leaf())), h.next())
		r := openReader(t, path)
		require.Equal(t, records, r.Info().TotalKey)
		peak := peakMemory(t, func() { // of everything but a Get of all
			for _, q := range querytest.Reader(r).Queries("key-60000", "key-6") {
				_, _, err := querytest.Ask(t.Context(), q)
				require.NoError(t, err)
			}
		})
		require.Less(t, peak, int64(192<<20))
	}
}

// What is in the other buckets may be anything. It is refused, and does not fill the
// memory.
func TestReaderGarbageInBuckets(t *testing.T) {
	skipUnderRace(t)
	short.Skip(t, "looks at the heap all the time")
	mib := func(n int, s string) string { return strings.Repeat(s, n<<20/len(s)) }
	users := func(db *snaptest.DB, bucket string, n int) *snaptest.DB {
		for i := range n {
			db.Raw(bucket, fmt.Sprintf("%06d", i)+strings.Repeat("u", 30<<10), "")
		}
		return db
	}
	for name, db := range map[string]*snaptest.DB{
		"member that is no JSON":    snaptest.NewDB().Raw("members", "1", "{"),
		"member of another type":    snaptest.NewDB().Raw("members", "1", `{"peerURLs": 7}`),
		"member with a name for id": snaptest.NewDB().Raw("members", "me", "{}"),
		"member of 60 MiB":          snaptest.NewDB().Raw("members", "1", `{"peerURLs":["`+mib(60, `","`)+`"]}`),
		"members of 18 MiB": func() *snaptest.DB {
			db := snaptest.NewDB()
			for i := range 6 {
				db.Raw("members", fmt.Sprint(i), `{"peerURLs":["`+mib(3, `","`)+`"]}`)
			}
			return db
		}(),
		"member that is deep":       snaptest.NewDB().Raw("members", "1", strings.Repeat("[", 100_000)),
		"member that has deep ones": snaptest.NewDB().Raw("members", "1", `{"x":`+strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)+"}"),
		"lease with a short id":     snaptest.NewDB().Raw("lease", "1234567", ""),
		"lease with a long id":      snaptest.NewDB().Raw("lease", "123456789", ""),
		"lease that is no protobuf": snaptest.NewDB().Raw("lease", "12345678", "\xff\xff"),
		"lease of 5 MiB":            snaptest.NewDB().Raw("lease", "12345678", mib(5, "\x10\x01")),
		"alarm that is no protobuf": snaptest.NewDB().Raw("alarm", "\xff\xff", ""),
		"bucket of members":         snaptest.NewDB().NestedBucket(map[string]string{"k": "v"}, "members", "8e9e05c52164694e"),
		"bucket of leases":          snaptest.NewDB().NestedBucket(nil, "lease", "12345678"),
		"bucket of alarms":          snaptest.NewDB().NestedBucket(nil, "alarm", "a"),
		"bucket of users":           snaptest.NewDB().NestedBucket(nil, "authUsers", "a"),
		"users of 20 MiB":           users(snaptest.NewDB(), "authUsers", 700),
		"roles of 20 MiB":           users(snaptest.NewDB(), "authRoles", 700),
		"alarms of 20 MiB": func() *snaptest.DB {
			db := snaptest.NewDB()
			for i := range 700 {
				db.Raw("alarm", string(append(binary.AppendUvarint([]byte{0x7a}, 30<<10), fmt.Sprintf("%06d", i)+strings.Repeat("u", 30<<10-6)...)), "")
			}
			return db
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			path := db.Put("a", "b").Write(t, filepath.Join(t.TempDir(), "db"), true)
			_, err := snapshot.New().Status(path)
			require.NoError(t, err, "which does not look there")
			peak := peakMemory(t, func() {
				r, err := snapshot.New().Open(t.Context(), path)
				require.ErrorIs(t, err, snapshot.ErrCorrupt)
				require.Nil(t, r)
				if strings.Contains(name, "MiB") {
					require.Regexp(t, `more than \d+ (MiB|bytes)`, err.Error())
				}
			})
			require.Less(t, peak, int64(192<<20))
			requireWritable(t, path)
		})
	}
}

// A key space can lie on no page, in its parent's, on one page, or be empty.
func TestReaderFormsOfTheKeySpace(t *testing.T) {
	for name, db := range map[string]*snaptest.DB{
		"no bucket":    snaptest.NewDB().DropBucket("key"),
		"empty bucket": snaptest.NewDB(),
		"inline":       snaptest.NewDB().Put("key/a", "b").Put("key/b", "c"),
		"one page":     snaptest.NewDB().Put("key/a", strings.Repeat("b", 2000)).Delete("key/a").Put("key/b", "c"),
		"large page":   snaptest.NewDB().Put("key/a", strings.Repeat("b", largerThanHeld)),
		"two levels":   snaptest.NewDB().Large(300, 100),
		"no buckets": func() *snaptest.DB {
			db := snaptest.NewDB()
			for _, name := range snaptest.Buckets {
				db.DropBucket(name)
			}
			return db
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			r := openReader(t, db.Write(t, filepath.Join(t.TempDir(), "db"), true))
			require.Zero(t, askAll(t, r, "key/a", "key/"))
			info := r.Info()
			require.Equal(t, max(db.Revision(), 1), info.Revision)
			n := 0
			for kv, err := range r.Range(t.Context(), "\x00", clientv3.WithFromKey()) {
				require.NoError(t, err)
				require.Equal(t, db.Live()[n].String(), kv.String())
				n++
			}
			require.Len(t, db.Live(), n)
		})
	}
}

// Revisions in bucket "meta" may be anything. No arithmetic with them goes wrong.
func TestReaderRevisionsInMeta(t *testing.T) {
	rev := func(main uint64) string {
		return string(binary.BigEndian.AppendUint64(nil, main)) + "_\x00\x00\x00\x00\x00\x00\x00\x00"
	}
	for name, tt := range map[string]struct {
		value     string
		refused   bool
		compacted int64
	}{
		"empty":        {"", false, 0},
		"short":        {"1234567", true, 0},
		"main alone":   {rev(5)[:8], false, 5},
		"odd":          {rev(5)[:11], false, 5},
		"long":         {rev(5) + strings.Repeat("x", 1<<20), false, 5},
		"negative":     {rev(1 << 63), false, 0},
		"minus one":    {rev(math.MaxUint64), false, 0},
		"past the end": {rev(100), false, 100},
		"largest":      {rev(math.MaxInt64), false, math.MaxInt64},
	} {
		for _, record := range []string{"finishedCompactRev", "scheduledCompactRev"} {
			t.Run(name+" "+record, func(t *testing.T) {
				db := snaptest.NewDB().Raw("meta", record, tt.value)
				for i := range 20 {
					db.Put(fmt.Sprint("key/", i%3), "v").Delete("key/1")
				}
				path := db.Write(t, filepath.Join(t.TempDir(), "db"), true)
				if tt.refused {
					_, err := snapshot.New().Open(t.Context(), path)
					require.ErrorIs(t, err, snapshot.ErrCorrupt)
					require.ErrorContains(t, err, record)
					return
				}
				r := openReader(t, path)
				info := r.Info()
				require.Equal(t, tt.compacted, info.CompactRevision)
				require.Equal(t, max(db.Revision(), tt.compacted), info.Revision)
				require.Zero(t, askAll(t, r, "key/0", "key/"))
				h, err := r.HashKV(t.Context(), 0, 0)
				require.NoError(t, err)
				require.Equal(t, info.Revision, h.Revision)
				require.Equal(t, tt.compacted, h.CompactRevision)
				resp, err := r.KV().Get(t.Context(), "key/", clientv3.WithPrefix(), clientv3.WithRev(info.Revision))
				require.NoError(t, err)
				require.Len(t, resp.Kvs, len(db.Live()))
				for _, extreme := range []int64{math.MinInt64, -1, math.MaxInt64} {
					for _, err := range r.Records(t.Context(), extreme) {
						require.NoError(t, err)
					}
					_, _ = r.HashKV(t.Context(), extreme, 0)
					_, _ = r.HashKV(t.Context(), 0, extreme)
					_, _ = r.KV().Get(t.Context(), "key/", clientv3.WithFromKey(), clientv3.WithRev(extreme), clientv3.WithLimit(extreme),
						clientv3.WithMinModRev(extreme), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend))
				}
			})
		}
	}
}
