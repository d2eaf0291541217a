package systemtest_test

// Every file operation, Write or Read of a call fails; and the golden traces of all
// operations. A run tries a sample, and all with
// go test ./internal/systemtest -run 'TestEvery(File|Write|Read)' -every
// -update rewrites the traces.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// sample is where a sweep begins, and its step: 0 and 1 with -every, otherwise a
// step that leaves some out, other ones for each offset.
func sample(offset int) (first, step int) {
	if *every {
		return 0, 1
	}
	return offset % sampleStep, short.Step(sampleStep, 6*sampleStep)
}

const sampleStep = 7

// A file operation fails once.
func TestEveryFileOperationFails(t *testing.T) {
	snaptest.NoLeaks(t)
	for i, op := range operations(t, enoughForWriteback) {
		for j, fault := range []error{syscall.EIO, syscall.ENOSPC, syscall.EINTR, durabletest.ErrShortWrite} {
			t.Run(op.name+"/"+fault.Error(), func(t *testing.T) {
				t.Parallel()
				absent, complete := op.outcomes(t)
				first, step := sample(i + j)
				if fault == durabletest.ErrShortWrite {
					first, step = 0, short.Step(1, 4) // there are few writes
				}
				apitest.Sweep(t, first, step, func(k int) *durabletest.Faults { return durabletest.FailAt(k, fault) }, func(f *durabletest.Faults) {
					root := op.root(t)
					fsys := apitest.QuickFS(f)
					if fault == durabletest.ErrShortWrite {
						fsys = apitest.QuickFS(apitest.WritesOnly{Faults: f})
					}
					err := op.run(apitest.OnFS(fsys, nil), root)
					require.Zero(t, fsys.CloseAll(), "files left open")
					at, hit := f.Hit()
					if err == nil {
						require.False(t, hit, "%v failed without an error", at)
						requireListing(t, complete, root)
						return
					}
					require.True(t, hit)
					apitest.RequireCause(t, err, fault, at)
					requireListing(t, absent, root, at, err)
					require.NoError(t, op.run(apitest.Quick(), root), at)
					requireListing(t, complete, root, at)
				})
			})
		}
	}
}

// A disk fails and does not come back: nothing can be cleaned up, but the
// target is still absent or complete, and the next call sees to the rest.
func TestEveryFileOperationFailsForGood(t *testing.T) {
	snaptest.NoLeaks(t)
	for i, op := range operations(t, enoughForWriteback) {
		for j, fault := range []error{syscall.EIO, syscall.EINTR} {
			t.Run(op.name+"/"+fault.Error(), func(t *testing.T) {
				t.Parallel()
				absent, complete := op.outcomes(t)
				first, step := sample(i + j)
				apitest.Sweep(t, first, step, func(k int) *durabletest.Faults { return durabletest.FailFrom(k, fault) }, func(f *durabletest.Faults) {
					root := op.root(t)
					fsys := apitest.QuickFS(f)
					err := op.run(apitest.OnFS(fsys, nil), root)
					require.Zero(t, fsys.CloseAll(), "files left open")
					if at, hit := f.Hit(); hit {
						apitest.RequireCause(t, err, fault, at)
					} else {
						require.NoError(t, err)
						requireListing(t, complete, root)
					}
					requireOldOrNew(t, op, root, absent, complete)
					op.requireMended(t, root, complete)
				})
			})
		}
	}
}

// requireOldOrNew fails unless each path that was there before, or is there in
// the end, is now what it was or what it will be.
func requireOldOrNew(t *testing.T, op operation, root string, absent, complete listing) {
	t.Helper()
	now := list(t, root)
	for path, content := range now {
		old, wasThere := absent[path]
		final, willBe := complete[path]
		if (wasThere || willBe) && (!wasThere || content != old) && (!willBe || content != final) {
			require.FailNow(t, "neither old nor new", "%s: %s", path, content)
		}
	}
	if !op.committed(t, root) {
		require.True(t, absent.within(now) || complete.within(now), "gone: %v", absent.minus(now))
	}
}

// SaveTo has no files: its writer fails.
func TestEveryWriteOfSaveToFails(t *testing.T) {
	db := snaptest.Opaque(4<<20 + 512)
	server := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(db) })
	faults := []error{syscall.EIO, io.ErrShortWrite, syscall.ENOSPC, syscall.EINTR}
	for _, fault := range faults[:short.Or(len(faults), 2)] {
		t.Run(fault.Error(), func(t *testing.T) {
			snaptest.NoLeaks(t)
			for k := 0; ; k++ {
				var w faultyWriter
				w.failAt, w.fault = k, fault
				_, err := snapshot.New().SaveTo(t.Context(), server.ClientConfig(), &w)
				if err == nil {
					require.True(t, bytes.Equal(snaptest.WithTrailer(db), w.got))
					require.Equal(t, 5, k)
					return
				}
				require.ErrorIs(t, err, fault)
				require.True(t, bytes.HasPrefix(snaptest.WithTrailer(db), w.got), "not the beginning of the snapshot")
				require.Equal(t, k+1, w.writes, "written to after an error")
			}
		})
	}
}

// faultyWriter takes half of a write and fails.
type faultyWriter struct {
	failAt int
	fault  error
	writes int
	got    []byte
}

func (w *faultyWriter) Write(p []byte) (int, error) {
	n, err := len(p), error(nil)
	if w.writes == w.failAt {
		if n /= 2; w.fault != io.ErrShortWrite {
			err = w.fault
		}
	}
	w.writes++
	w.got = append(w.got, p[:n]...)
	return n, err
}

// The reader of RestoreFrom fails.
func TestEveryReadOfRestoreFromFails(t *testing.T) {
	snaptest.NoLeaks(t)
	content := smallSnapshot(t)
	for k := 0; ; k++ {
		dir := snaptest.MemoryDir(t)
		r := &faultyReader{r: bytes.NewReader(content), failAt: k}
		err := snapshot.New().RestoreFrom(context.Background(), r, apitest.Config("", filepath.Join(dir, "data")))
		if err == nil {
			require.Greater(t, k, len(content)/readerPiece)
			return
		}
		require.ErrorIs(t, err, syscall.EIO)
		require.Empty(t, list(t, dir))
	}
}

const readerPiece = 999

type faultyReader struct {
	r      io.Reader
	failAt int
	reads  int
}

func (r *faultyReader) Read(p []byte) (int, error) {
	if r.reads++; r.reads > r.failAt {
		return 0, syscall.EIO
	}
	return r.r.Read(p[:min(len(p), readerPiece)])
}

// The order of syncs and renames, as text to be reviewed.
func TestTraces(t *testing.T) {
	const intent = "/intent "
	for _, op := range operations(t, enoughForWriteback) {
		t.Run(op.name, func(t *testing.T) {
			root := op.root(t)
			var rec durabletest.Recorder
			require.NoError(t, op.run(apitest.Quick(&rec), root))
			lines := strings.Split(rec.Trace(root), "\n")
			for i, line := range lines {
				if path, _, ok := strings.Cut(line, intent); ok {
					lines[i] = path + intent + "*" // its size depends on where the root is
				}
			}
			requireSyncedBeforeCommit(t, op, lines)
			requireGolden(t, op.name, strings.Join(lines, "\n"))
		})
	}
}

// requireSyncedBeforeCommit holds whatever the golden file says.
func requireSyncedBeforeCommit(t *testing.T, op operation, lines []string) {
	t.Helper()
	rename := func(line string) bool {
		return strings.HasPrefix(line, "rename ") || strings.HasPrefix(line, "publish ")
	}
	first := slices.IndexFunc(lines, rename)
	require.Positive(t, first)
	for _, line := range lines[:first] {
		kind, rest, _ := strings.Cut(line, " ")
		path, _, _ := strings.Cut(rest, " ")
		if kind == "create" && !strings.HasSuffix(path, "/lock") {
			require.Contains(t, lines[:first], "sync "+path, "%s: written and published unsynced", op.name)
		}
	}
	for i, line := range lines {
		if rename(line) {
			_, to, _ := strings.Cut(line, " -> ")
			require.Equal(t, "syncdir "+filepath.ToSlash(filepath.Dir(to)), lines[i+1], "%s: published for a power cut to take back", op.name)
		}
	}
}

var goldenName = strings.NewReplacer(" ", "-", ",", "")

func requireGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "traces", goldenName.Replace(name)+".trace")
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w: run the test with -update", err)
	}
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}
