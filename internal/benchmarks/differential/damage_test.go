package differential_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"github.com/stretchr/testify/require"
)

var (
	damagedFiles = flag.Int("damaged", 100, "number of damaged files to compare")
	damagedFirst = flag.Int("damaged-first", 0, "number of the first damaged file, to repeat one")
)

// TestStatusOfDamagedFiles compares our Status with bbolt's checker and etcd's
// Status on files with random damage. Ours refuses what they refuse or do not
// survive. It accepts what they accept, with the same outcome, or refuses it as
// corrupt because it checks more. The one exception is a damaged meta page beside a
// valid one: bbolt itself reads and writes the database, its checker panics.
func TestStatusOfDamagedFiles(t *testing.T) {
	bases := [][]byte{
		churn(200).Bytes(t, false),
		churn(400).Fragment().WithFreelist(true).Bytes(t, false),
		large(30, 6000).Put("a", "b").Bytes(t, true),
		large(5600, 8).Bytes(t, false), // two levels of branch pages
		synthetic["nested buckets"]().AuthUser("root", "root").Bytes(t, true),
		churn(300).Compact(150).Bump(1000).PageSize(16<<10).Bytes(t, false),
	}
	path := filepath.Join(t.TempDir(), "damaged.db")
	ref := startReference(t)
	defer ref.stop()

	var n struct{ metaLost, refused, died, hung, same, stricter, statusRefused, statusDied int }
	for i := *damagedFirst; i < *damagedFirst+*damagedFiles; i++ {
		rng := rand.New(rand.NewPCG(8, uint64(i)))
		data, wound := snaptest.Mutate(rng, bytes.Clone(bases[i%len(bases)]))
		if rng.IntN(2) == 0 {
			snaptest.FixTrailerBytes(data)
		}
		require.NoError(t, os.WriteFile(path, data, 0o600))

		v := ref.verdict(t, path)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		got, err := snapshot.New().StatusContext(ctx, path)
		require.NoError(t, ctx.Err(), "file %d (%s): hangs", i, wound)
		_, verifyErr := snapshot.New().Verify(ctx, path)
		cancel()

		if err != nil {
			require.ErrorIs(t, err, snapshot.ErrCorrupt, "file %d (%s)", i, wound)
			require.Zero(t, got, "file %d (%s)", i, wound)
			require.Error(t, verifyErr, "file %d (%s): Verify accepts what Status refuses: %v", i, wound, err)
		}
		switch {
		case err == nil && checkerWantsMeta(v.Check.Error+v.Check.Died, data):
			n.metaLost++
		case v.Check.Died != "":
			n.died++
			if v.Check.Died == hangs {
				n.hung++
			}
			require.Error(t, err, "file %d (%s): bbolt %s", i, wound, v.Check.Died)
		case v.Check.Error != "":
			n.refused++
			require.Error(t, err, "file %d (%s): bbolt finds %s", i, wound, v.Check.Error)
		case v.Status.Died != "":
			n.statusDied++ // perhaps only because there is no meta bucket
		case v.Status.Error != "":
			n.statusRefused++
			require.Error(t, err, "file %d (%s): etcd finds %s", i, wound, v.Status.Error)
		case err != nil:
			n.stricter++
		default:
			n.same++
			require.Equal(t, snapshot.Status(v.Status.Status), got, "file %d (%s)", i, wound)
		}
	}
	t.Logf("%d damaged files: bbolt's checker refuses %d and does not survive %d (%d hang), which are refused here too",
		*damagedFiles, n.refused, n.died, n.hung)
	t.Logf("%d with a damaged meta page are read here, although the checker panics on it", n.metaLost)
	t.Logf("of those that pass it, etcd's Status refuses %d, which are refused here too, and does not survive %d; of the rest, the outcome is the same for %d, and %d are refused here alone",
		n.statusRefused, n.statusDied, n.same, n.stricter)
	require.NotZero(t, n.refused+n.died, "no damage was found")
	require.NotZero(t, n.same, "all files are beyond reading")
}

// checkerWantsMeta reports whether bbolt's checker failed on the header of a meta
// page that no longer holds a meta.
func checkerWantsMeta(finding string, data []byte) bool {
	for page := range 2 {
		if strings.Contains(finding, fmt.Sprintf("Page expected to be: %d, but", page)) ||
			strings.Contains(finding, fmt.Sprintf("page %d: has unexpected type", page)) {
			return !snaptest.ValidMeta(data, page)
		}
	}
	return false
}

// The reference must report damage and soundness, and survive what it can.
func TestReference(t *testing.T) {
	ref := startReference(t)
	defer ref.stop()
	path := churn(50).Write(t, filepath.Join(t.TempDir(), "db"), false)

	v := ref.verdict(t, path)
	require.True(t, v.Check.ok() && v.Status.ok(), v)
	require.Equal(t, churn(50).LiveKeys(), v.Status.Status.TotalKey)

	require.NoError(t, ref.cmd.Process.Kill())
	require.Equal(t, v, ref.verdict(t, path), "the end of a process is not blamed on the file")

	snaptest.Truncate(t, path, 100)
	require.NotEmpty(t, ref.verdict(t, path).Check.Error)

	deadly := without(churn(10), "meta").Write(t, filepath.Join(t.TempDir(), "db"), false)
	v = ref.verdict(t, deadly)
	require.True(t, v.Check.ok())
	require.Contains(t, v.Status.Died, "panic")
}
