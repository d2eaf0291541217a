package boltfile_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/boltfile"
)

// LastKey reads a database that was not checked before: what is wrong on its way is
// an error.
func TestLastKeyOfDamagedDatabase(t *testing.T) {
	whole := build(t, 1024, false, fill("a", 3000, 100))
	lastLeaf := func(m *image) int {
		id := m.bucketRoot()
		for m.flags(id) == typeBranch {
			id = m.child(id, m.count(id)-1)
		}
		return id
	}
	for name, tt := range map[string]struct {
		damage func(m *image)
		want   string
	}{
		"root is a meta page":         {func(m *image) { m.inBucket(0, 1) }, "root of a bucket, high-water mark"},
		"root beyond high-water mark": {func(m *image) { m.inBucket(0, math.MaxUint64) }, "root of a bucket, high-water mark"},
		"root of another type":        {func(m *image) { m.set16(m.bucketRoot(), headFlags, 0x10) }, "where a branch page should be"},
		"root refers to itself": {func(m *image) {
			root := m.bucketRoot()
			m.set64(root, branchPgid(m.count(root)-1), uint64(root))
		}, "referenced more than once"},
		"table exceeds the page":      {func(m *image) { m.set16(lastLeaf(m), headCount, 0xFFFF) }, "table of 65535 elements"},
		"page exceeds the file":       {func(m *image) { m.set32(lastLeaf(m), headOverflow, 1<<20) }, "page of"},
		"last element is a bucket":    {func(m *image) { m.set32(lastLeaf(m), leafFlags(m.count(lastLeaf(m))-1), 1) }, "a bucket where a record should be"},
		"last key is empty":           {func(m *image) { m.set32(lastLeaf(m), leafKey(m.count(lastLeaf(m))-1), 0) }, "key of 0 bytes"},
		"last key is too long":        {func(m *image) { m.set32(lastLeaf(m), leafKey(m.count(lastLeaf(m))-1), 32769) }, "key of 32769 bytes"},
		"last key exceeds the page":   {func(m *image) { m.set32(lastLeaf(m), leafPos(m.count(lastLeaf(m))-1), 1<<30) }, "of a page of 1024 bytes"},
		"last key exceeds it by bits": {func(m *image) { m.set32(lastLeaf(m), leafPos(m.count(lastLeaf(m))-1), math.MaxUint32) }, "of a page of 1024 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newImage(whole)
			tt.damage(m)
			db, err := boltfile.Open(bytes.NewReader(m.b), int64(len(m.b)))
			require.NoError(t, err)
			key, err := db.LastKey(t.Context(), "a")
			require.Nil(t, key)
			var corrupt *boltfile.CorruptError
			require.ErrorAs(t, err, &corrupt)
			require.ErrorContains(t, err, tt.want)
		})
	}
	m := newImage(whole)
	m.set16(lastLeaf(m), headCount, 0) // bbolt leaves no such page below a branch page
	db, err := boltfile.Open(bytes.NewReader(m.b), int64(len(m.b)))
	require.NoError(t, err)
	key, err := db.LastKey(t.Context(), "a")
	require.NoError(t, err)
	require.Nil(t, key)
}

// Whatever an Edit reads it for, a read that fails ends it with the error.
func TestEditReadsFail(t *testing.T) {
	for name, b := range map[string][]byte{
		"branches": build(t, 1024, false, fill("a", 3000, 100), fill("b", 700, 100)),
		"one leaf": build(t, 4096, false, fill("a", 30, 60), fill("b", 30, 60)),
		"large":    build(t, 4096, false, fill("a", 2, 5<<20), fill("b", 2, 5<<20)),
	} {
		t.Run(name, func(t *testing.T) {
			for what, do := range map[string]func(db *boltfile.DB, e *boltfile.Edit) error{
				"last key":       func(db *boltfile.DB, _ *boltfile.Edit) error { _, err := db.LastKey(t.Context(), "a"); return err },
				"last of a list": func(_ *boltfile.DB, e *boltfile.Edit) error { _, err := e.LastKey("a"); return err },
				"append":         func(_ *boltfile.DB, e *boltfile.Edit) error { return e.Append("a", boltfile.Record{Key: []byte("z")}) },
				"records":        func(_ *boltfile.DB, e *boltfile.Edit) error { _, err := e.Records("b"); return err },
			} {
				r := &failing{b: b, reads: math.MaxInt}
				db, err := boltfile.Open(r, int64(len(b)))
				require.NoError(t, err)
				_, buckets, err := db.Scan(t.Context(), boltfile.Options{Workers: 1})
				require.NoError(t, err)
				failed := 0
				for {
					r.reads = failed
					err := do(db, db.Edit(t.Context(), &limitedWriter{w: &memory{}, writes: math.MaxInt}, buckets))
					if r.reads >= 0 {
						require.NoError(t, err, what)
						break
					}
					require.ErrorIs(t, err, errDisk, "%s, read %d", what, failed)
					failed++
				}
				require.Positive(t, failed, what)
			}
		})
	}
}

// A bucket whose last key cannot be read is not an empty one, also where the table
// of elements is longer than bbolt makes it and has to be read on its own.
func TestLastKeyBehindLongTable(t *testing.T) {
	const elements = 10_000
	m := newForge(300)
	m.bucket(2, 3)
	m.elements(3, elements, 0, nil, 4)
	for failed := 0; ; failed++ {
		r := &failing{b: m.b, reads: math.MaxInt}
		db, err := boltfile.Open(r, int64(len(m.b)))
		require.NoError(t, err)
		r.reads = failed
		key, err := db.LastKey(t.Context(), "k")
		if r.reads >= 0 {
			require.NoError(t, err)
			require.Equal(t, binary.BigEndian.AppendUint32(nil, elements-1), key)
			require.Greater(t, failed, 3)
			return
		}
		require.ErrorIs(t, err, errDisk, "read %d", failed)
		require.Nil(t, key)
	}
}

// A bucket among records is refused too where the page is too large to be held in
// memory: it would be gone when the records are replaced.
func TestRecordsBesideBucketOnLargePage(t *testing.T) {
	b := build(t, 4096, false, largeAndNested)
	db, err := boltfile.Open(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	_, buckets, err := db.Scan(t.Context(), boltfile.Options{})
	require.NoError(t, err)
	list, err := db.Edit(t.Context(), &memory{}, buckets).Records("a")
	require.Nil(t, list)
	var corrupt *boltfile.CorruptError
	require.ErrorAs(t, err, &corrupt)
	require.ErrorContains(t, err, `bucket "a": "1 inline" is a bucket, not a record`)
}
