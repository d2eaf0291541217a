package bootstrap_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/client/pkg/v3/types"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/bootstrap"
)

// faulty is a database on a disk that fails once, after some reads or writes.
type faulty struct {
	*os.File
	reads, writes int
}

func (f *faulty) ReadAt(p []byte, off int64) (int, error) {
	if f.reads--; f.reads == -1 {
		return 0, errDisk
	}
	return f.File.ReadAt(p, off)
}

func (f *faulty) WriteAt(p []byte, _ int64) (int, error) {
	if f.writes--; f.writes == -1 {
		return 0, errDisk
	}
	return len(p), nil // nothing is committed
}

// Whichever read or write fails, the error comes back.
func TestEditFails(t *testing.T) {
	const plenty = 1 << 30
	// Too much for a bucket within the page of another, which is not written by
	// itself.
	db := oldCluster().with("meta", "long", strings.Repeat("x", 5000)).with("alarm", "long", strings.Repeat("x", 5000)).without("cluster")
	members := types.URLsMap{}
	for i := range 50 {
		members[fmt.Sprintf("m%d", i)] = types.MustNewURLs([]string{fmt.Sprintf("http://10.0.0.%d:2380", i)})
	}
	c, err := bootstrap.New("m7", "tok", members)
	require.NoError(t, err)
	all := bootstrap.Changes{RevisionBump: 1, DropAlarms: true}
	file, err := os.Open(db.write(t))
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	info, err := file.Stat()
	require.NoError(t, err)

	edit := func(f *faulty, db *boltfile.DB, buckets []boltfile.Bucket) error {
		_, err := c.Edit(db.Edit(t.Context(), f, buckets), all)
		return err
	}
	for name, tt := range map[string]struct {
		limit func(f *faulty) *int
		do    func(f *faulty, db *boltfile.DB, buckets []boltfile.Bucket) error
		least int
	}{
		"read":  {func(f *faulty) *int { return &f.reads }, edit, 5},
		"write": {func(f *faulty) *int { return &f.writes }, edit, 5},
		"check": {func(f *faulty) *int { return &f.reads }, func(_ *faulty, db *boltfile.DB, _ []boltfile.Bucket) error {
			return all.CheckBump(t.Context(), db)
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			for n := 0; ; n++ {
				f := &faulty{file, plenty, plenty}
				db, err := boltfile.Open(f, info.Size())
				require.NoError(t, err)
				_, buckets, err := db.Scan(t.Context(), boltfile.Options{Workers: 1})
				require.NoError(t, err)
				left := tt.limit(f)
				*left = n
				err = tt.do(f, db, buckets)
				if *left >= 0 {
					require.NoError(t, err)
					require.GreaterOrEqual(t, n, tt.least)
					return
				}
				require.ErrorIs(t, err, errDisk, "%s %d", name, n)
			}
		})
	}
}
