package query_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/query"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/querytest"
)

// resum corrects the checksums of both meta pages, which a fuzzer would never
// guess, for a database with the smallest page size.
func resum(b []byte) {
	const pageSize = 1024
	for _, at := range []int{0, pageSize} {
		if len(b) >= at+16+64 {
			h := fnv.New64a()
			_, _ = h.Write(b[at+16 : at+16+56])
			binary.NativeEndian.PutUint64(b[at+16+56:], h.Sum64())
		}
	}
}

// seeds are small databases of different shapes, by name.
func seeds(tb testing.TB) map[string][]byte {
	history := func() *snaptest.DB {
		db := snaptest.NewDB().PageSize(1024)
		for i := range 60 {
			db.Put(fmt.Sprint("k/", i%7), strings.Repeat("v", i)).Delete(fmt.Sprint("k/", i%3))
		}
		return db
	}
	return map[string][]byte{
		"new":        snaptest.NewDB().PageSize(1024).Bytes(tb, false),
		"history":    history().Bytes(tb, false),
		"compacted":  history().Compact(50).Bytes(tb, false),
		"compacting": history().CompactPartially(60, 10).Bytes(tb, false),
		"bumped":     history().Bump(100).Bytes(tb, false),
		"leases": snaptest.NewDB().PageSize(1024).Lease(7, 60).PutLease("k/0", "v", 7).PutLease("k/1", "v", 8).
			AuthUser("root", "root").AuthRole("root", "", "").AuthEnable(3).Bytes(tb, false),
		"overflow": snaptest.NewDB().PageSize(1024).Put("k/0", strings.Repeat("v", 3000)).Put("k/1", "").Bytes(tb, false),
	}
}

// Whatever is in a file, it is refused, or each query answers, with ErrCorrupt at
// most, and a second time the same.
func FuzzQuery(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b, true, []byte{0, 7, 13, 25})
	}
	f.Fuzz(func(t *testing.T, b []byte, fix bool, choice []byte) {
		if len(b) > 1<<20 || len(choice) > 30 {
			return
		}
		if fix {
			resum(b)
		}
		db, err := query.NewDatabase(t.Context(), bytes.NewReader(b), int64(len(b)), boltfile.Options{})
		if err != nil {
			require.ErrorIs(t, err, fault.ErrCorrupt)
			require.Nil(t, db)
			return
		}
		queries := target(db).Queries("k/1", "k")
		for _, c := range choice {
			_, err := querytest.AskTwice(t.Context(), queries[int(c)%len(queries)])
			require.NoError(t, err)
		}
		require.NoError(t, db.Close())
	})
}

// The seed corpus in the repository must not get lost.
func TestFuzzCorpus(t *testing.T) {
	entries, err := os.ReadDir(filepath.Join("testdata", "fuzz", "FuzzQuery"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(entries), len(seeds(t)))
}
