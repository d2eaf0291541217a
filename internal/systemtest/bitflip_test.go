package systemtest_test

// No damaged byte is restored: Verify and Restore refuse a snapshot with any bit
// flipped, or of any other length. A run tries a sample, and all with
// go test ./internal/systemtest -run 'TestEvery(Bit|Length)' -every

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// tinySnapshot is small enough for every bit of it to be tried: pages of 1 KiB,
// a branch page, an overflow page, tombstones, and a free page or two.
func tinySnapshot(tb testing.TB) []byte {
	db := snaptest.NewDB().PageSize(1024)
	for i := range 8 {
		db.Put(fmt.Sprint("key", i%5), string(snaptest.Opaque(80)))
	}
	return db.Put("long", string(snaptest.Opaque(1100))).Delete("key1").Fragment().Bytes(tb, true)
}

// Verify and Restore refuse a snapshot with a wrong bit anywhere, and Status
// and a restore without the digest answer one way or the other.
func TestEveryBitFlipped(t *testing.T) {
	content := tinySnapshot(t)
	step := short.Step(211, 2111)
	if *every {
		step = 1
	}
	tally := tryDamage(t, 8*len(content), step, func(w *damageTester, bit int) error {
		damaged := append([]byte(nil), content...)
		damaged[bit/8] ^= 1 << (bit % 8)
		if err := w.write(damaged); err != nil {
			return err
		}
		return errors.Join(w.requireRefused(), w.requireAnswer())
	})
	require.Equal(t, (8*len(content)+step-1)/step, tally.tried)
	t.Logf("%d bits of %d; without the digest: Status refused %d, Restore %d", tally.tried, 8*len(content), tally.status, tally.restore)
}

// So it is with a snapshot of any other length, shorter or longer.
func TestEveryLength(t *testing.T) {
	content := tinySnapshot(t)
	step := short.Step(53, 499)
	if *every {
		step = 1
	}
	longer := append(append([]byte(nil), content...), make([]byte, 2*1024)...)
	tally := tryDamage(t, len(longer)+1, step, func(w *damageTester, size int) error {
		if size == len(content) {
			return nil
		}
		if err := w.write(longer[:size]); err != nil {
			return err
		}
		err := errors.Join(w.requireRefused(), w.requireAnswer())
		if size < len(content)-32 && (w.statusErr == nil || w.restoreErr == nil) {
			err = errors.Join(err, fmt.Errorf("a part of the database is missing; Status: %v, Restore: %v", w.statusErr, w.restoreErr))
		}
		return err
	})
	t.Logf("%d lengths up to %d; without the digest: Status refused %d, Restore %d", tally.tried, len(longer), tally.status, tally.restore)
}

// damageTally counts files, and those that were refused by their structure.
type damageTally struct{ tried, status, restore int }

// tryDamage calls try for 0, step, 2*step… below n, on all processors.
func tryDamage(t *testing.T, n, step int, try func(w *damageTester, i int) error) damageTally {
	t.Helper()
	var next atomic.Int64
	var mu sync.Mutex
	var tally damageTally
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		w := &damageTester{m: apitest.Quick(), dir: snaptest.MemoryDir(t)}
		wg.Go(func() {
			for !t.Failed() {
				i := int(next.Add(int64(step))) - step
				if i >= n {
					return
				}
				w.statusErr, w.restoreErr = nil, nil
				if err := try(w, i); err != nil {
					t.Errorf("%d: %v", i, err)
				}
				mu.Lock()
				tally.tried++
				if w.statusErr != nil {
					tally.status++
				}
				if w.restoreErr != nil {
					tally.restore++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return tally
}

// damageTester tries one damaged file after the other.
type damageTester struct {
	m   apitest.Manager
	dir string

	statusErr, restoreErr error // where the digest is not compared
}

func (w *damageTester) file() string   { return filepath.Join(w.dir, "snap.db") }
func (w *damageTester) target() string { return filepath.Join(w.dir, "data") }

func (w *damageTester) write(content []byte) error { return os.WriteFile(w.file(), content, 0o600) }

// requireRefused wants an error that says why from whatever compares the digest.
func (w *damageTester) requireRefused() error {
	st, err := w.m.Verify(context.Background(), w.file())
	if err := isRefusal(err); err != nil {
		return fmt.Errorf("Verify: %w", err)
	}
	if st != (snapshot.Status{}) {
		return fmt.Errorf("Verify: error and %+v", st)
	}
	if err := isRefusal(w.m.Restore(apitest.Config(w.file(), w.target()))); err != nil {
		return fmt.Errorf("Restore: %w", err)
	}
	return w.requireNothing()
}

func isRefusal(err error) error {
	if errors.Is(err, snapshot.ErrChecksum) || errors.Is(err, snapshot.ErrNoTrailer) {
		return nil
	}
	return fmt.Errorf("got %v, want ErrChecksum or ErrNoTrailer", err)
}

// requireAnswer wants success, or ErrCorrupt, from what does not compare the
// digest.
func (w *damageTester) requireAnswer() error {
	_, w.statusErr = w.m.Status(w.file())
	if w.statusErr != nil && !errors.Is(w.statusErr, snapshot.ErrCorrupt) {
		return fmt.Errorf("Status: %w", w.statusErr)
	}
	cfg := apitest.Config(w.file(), w.target())
	cfg.SkipHashCheck = true
	if w.restoreErr = w.m.Restore(cfg); w.restoreErr != nil {
		if !errors.Is(w.restoreErr, snapshot.ErrCorrupt) {
			return fmt.Errorf("Restore without the digest: %w", w.restoreErr)
		}
		return w.requireNothing()
	}
	// Whether the records make sense is for the server to say.
	if _, err := w.m.Status(filepath.Join(w.target(), "member", "snap", "db")); err != nil && !errors.Is(err, snapshot.ErrCorrupt) {
		return fmt.Errorf("Status of what was restored: %w", err)
	}
	return errors.Join(os.RemoveAll(w.target()), w.requireNothing())
}

func (w *damageTester) requireNothing() error {
	entries, err := os.ReadDir(w.dir)
	if err == nil && len(entries) != 1 {
		err = fmt.Errorf("left behind: %v", entries)
	}
	return err
}
