package snaptest_test

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"etcd.example/snapshot/internal/snaptest"
)

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return data
}

// diff lists the offsets at which two files of one length differ.
func diff(t *testing.T, a, b []byte) (at []int) {
	t.Helper()
	require.Len(t, b, len(a))
	for i := range a {
		if a[i] != b[i] {
			at = append(at, i)
		}
	}
	return at
}

func TestDamage(t *testing.T) {
	path := history().Large(300, 200).Write(t, filepath.Join(t.TempDir(), "db"), true)
	sound := read(t, path)
	damaged := func(damage func()) []byte {
		t.Helper()
		require.NoError(t, os.WriteFile(path, sound, 0o600))
		damage()
		return read(t, path)
	}

	got := damaged(func() { snaptest.Flip(t, path, 5000, 3) })
	require.Equal(t, []int{5000}, diff(t, sound, got))
	require.Equal(t, sound[5000]^8, got[5000])

	got = damaged(func() { snaptest.Truncate(t, path, 777) })
	require.Equal(t, sound[:777], got)

	got = damaged(func() { snaptest.Overwrite(t, path, 4095, []byte{^sound[4095], ^sound[4096]}) })
	require.Equal(t, []int{4095, 4096}, diff(t, sound, got))

	root := snaptest.BucketRoot(t, path, "key")
	for _, f := range []snaptest.Field{snaptest.PageID, snaptest.PageFlags, snaptest.PageCount, snaptest.PageOverflow} {
		damaged(func() { snaptest.SetPageField(t, path, root, f, 0x0102) })
		before, after := snaptest.ParsePage(sound, root), snaptest.Page(t, path, root)
		switch f {
		case snaptest.PageID:
			before.ID = 0x0102
		case snaptest.PageFlags:
			before.Flags = 0x0102
		case snaptest.PageCount:
			before.Count = 0x0102
		case snaptest.PageOverflow:
			before.Overflow = 0x0102
		}
		require.Equal(t, before, after, f)
	}

	damaged(func() { snaptest.CopyPage(t, path, root, root-1) })
	require.Equal(t, root, snaptest.Page(t, path, root-1).ID)

	got = damaged(func() {
		snaptest.Flip(t, path, 5000, 0)
		snaptest.FixTrailer(t, path)
	})
	sum := sha256.Sum256(got[:len(got)-sha256.Size])
	require.Equal(t, sum[:], got[len(got)-sha256.Size:])
}

func TestDamageElements(t *testing.T) {
	path := history().Large(300, 200).Write(t, filepath.Join(t.TempDir(), "db"), false)
	root := snaptest.BucketRoot(t, path, "key")
	require.EqualValues(t, snaptest.BranchFlag, snaptest.Page(t, path, root).Flags)
	require.Zero(t, snaptest.BucketRoot(t, path, "meta"), "a small bucket is inline")

	child := snaptest.ElementField(t, path, root, 1, snaptest.BranchPage)
	var ids []uint64
	for _, p := range snaptest.Pages(t, path) {
		ids = append(ids, p.ID)
	}
	require.Contains(t, ids, child)
	snaptest.SetElementField(t, path, root, 1, snaptest.BranchPage, 1<<40)
	require.Equal(t, uint64(1<<40), snaptest.ElementField(t, path, root, 1, snaptest.BranchPage))
	snaptest.SetElementField(t, path, root, 1, snaptest.BranchPage, child)

	// bbolt itself must see the change.
	key := []byte("\x00\x00\x00\x00\x00\x00\x00\x02_\x00\x00\x00\x00\x00\x00\x00\x00")
	page, element := snaptest.Leaf(t, path, "key", key)
	size := snaptest.ElementField(t, path, page, element, snaptest.LeafValueSize)
	snaptest.SetElementField(t, path, page, element, snaptest.LeafValueSize, size-1)
	b, err := bbolt.Open(path, 0o400, &bbolt.Options{ReadOnly: true})
	require.NoError(t, err)
	require.NoError(t, b.View(func(tx *bbolt.Tx) error {
		require.Len(t, tx.Bucket([]byte("key")).Get(key), int(size)-1)
		return nil
	}))
	require.NoError(t, b.Close())
}

func TestSetMeta(t *testing.T) {
	path := history().Write(t, filepath.Join(t.TempDir(), "db"), true)
	snaptest.SetMetas(t, path, func(m *snaptest.Meta) { m.TxID += 100 })
	b, err := bbolt.Open(path, 0o400, &bbolt.Options{ReadOnly: true})
	require.NoError(t, err, "the checksum is right")
	require.NoError(t, b.View(func(tx *bbolt.Tx) error {
		require.Greater(t, tx.ID(), 100)
		return nil
	}))
	require.NoError(t, b.Close())

	snaptest.SetMetas(t, path, func(m *snaptest.Meta) { m.Version = 9 })
	_, err = bbolt.Open(path, 0o400, &bbolt.Options{ReadOnly: true})
	require.ErrorIs(t, err, berrors.ErrVersionMismatch)
}

func TestMutate(t *testing.T) {
	const runs = 20000
	for _, db := range []*snaptest.DB{
		history().Large(100, 100), snaptest.NewDB(), history().PageSize(16 << 10),
	} {
		sound := db.Bytes(t, true)
		rng := rand.New(rand.NewPCG(1, 2))
		scratch := make([]byte, len(sound))
		same := 0
		for range runs {
			data := scratch[:copy(scratch, sound)]
			data, desc := snaptest.Mutate(rng, data)
			require.NotEmpty(t, desc)
			if bytes.Equal(data, sound) {
				same++
			}
			// Damaged data can be damaged again.
			again, _ := snaptest.Mutate(rng, data)
			require.LessOrEqual(t, len(again), len(data))
		}
		require.Less(t, same, runs/10, "most damage must change something")
	}
	for n := range 200 {
		data, _ := snaptest.Mutate(rand.New(rand.NewPCG(uint64(n), 0)), make([]byte, n))
		require.LessOrEqual(t, len(data), n)
	}
	one, howOne := snaptest.Mutate(rand.New(rand.NewPCG(7, 7)), history().Bytes(t, true))
	two, howTwo := snaptest.Mutate(rand.New(rand.NewPCG(7, 7)), history().Bytes(t, true))
	require.Equal(t, howOne, howTwo)
	require.Equal(t, one, two)
}

func BenchmarkMutate(b *testing.B) {
	sound := history().Bytes(b, true)
	scratch := make([]byte, len(sound))
	rng := rand.New(rand.NewPCG(1, 2))
	for b.Loop() {
		snaptest.Mutate(rng, scratch[:copy(scratch, sound)])
	}
}
