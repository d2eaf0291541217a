package durable_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
)

func TestTargetMadeMeanwhile(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			root := l.prepare(t)
			cfg := l.config(root)
			at := cfg.Dir
			if l.into {
				at = filepath.Join(cfg.Dir, "member")
			}
			target, err := durable.Open(durable.OS, cfg)
			require.NoError(t, err)
			require.NoError(t, fill(durable.OS, target))
			require.NoError(t, os.MkdirAll(at, 0o700)) // empty: a plain rename would replace it
			if !l.into {
				_, err := durable.Open(durable.OS, cfg)
				require.ErrorIs(t, err, durable.ErrExists)
				require.NotErrorIs(t, err, durable.ErrInUse)
			}
			before := listing{}
			for path, content := range list(t, root) {
				if !strings.Contains(path, ".restore") {
					before[path] = content
				}
			}
			require.ErrorIs(t, target.Commit(), durable.ErrExists)
			require.NoError(t, target.Cleanup())
			after := list(t, root)
			delete(before, "log/") // made by Open, removed by Cleanup
			require.Equal(t, before, after)
		})
	}
}

func TestTargetIncomplete(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			root := l.prepare(t)
			before := list(t, root)
			target, err := durable.Open(durable.OS, l.config(root))
			require.NoError(t, err)
			require.Error(t, target.Commit(), "nothing staged")
			require.NoError(t, target.Cleanup())
			require.Equal(t, before, list(t, root))
		})
	}
	t.Run("two entries into existing", func(t *testing.T) {
		root := t.TempDir()
		target, err := durable.Open(durable.OS, durable.TargetConfig{Dir: root, AllowEmptyDir: true})
		require.NoError(t, err)
		require.NoError(t, fill(durable.OS, target))
		require.NoError(t, os.Mkdir(filepath.Join(target.TreeDir(), "second"), 0o700))
		require.ErrorContains(t, target.Commit(), "2 entries staged")
		require.NoError(t, target.Cleanup())
		require.Empty(t, list(t, root))
	})
	t.Run("link staged", func(t *testing.T) {
		root := t.TempDir()
		target, err := durable.Open(durable.OS, durable.TargetConfig{Dir: filepath.Join(root, "data")})
		require.NoError(t, err)
		require.NoError(t, fill(durable.OS, target))
		symlink(t, "member", filepath.Join(target.TreeDir(), "link"))
		require.ErrorContains(t, target.Commit(), "neither a file nor a directory")
		require.NoError(t, target.Cleanup())
		require.Empty(t, list(t, root))
	})
}

func TestTargetConcurrent(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			root := l.prepare(t)
			var wg sync.WaitGroup
			errs := make([]error, 24)
			for i := range errs {
				wg.Go(func() { errs[i] = publish(wrap(), l.config(root)) })
			}
			wg.Wait()
			won := 0
			for _, err := range errs {
				if err == nil {
					won++
					continue
				}
				require.True(t, errors.Is(err, durable.ErrExists) || errors.Is(err, durable.ErrInUse), "%v", err)
			}
			require.Equal(t, 1, won)
			require.Equal(t, l.complete(), list(t, root))
		})
	}
}

// Calls that come and go must not disturb each other, whoever holds the lock
// when another looks.
func TestTargetConcurrentFailures(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			root := l.prepare(t)
			before := list(t, root)
			var wg sync.WaitGroup
			errs := make([]error, 8)
			for i := range errs {
				wg.Go(func() {
					for range 20 {
						target, err := durable.Open(wrap(), l.config(root))
						if errors.Is(err, durable.ErrInUse) {
							continue
						}
						if err == nil {
							err = errors.Join(fill(wrap(), target), target.Cleanup())
						}
						errs[i] = errors.Join(errs[i], err)
					}
				})
			}
			wg.Wait()
			require.NoError(t, errors.Join(errs...))
			require.NoError(t, publish(wrap(), l.config(root)))
			after := list(t, root)
			for path := range before {
				require.Contains(t, after, path)
			}
			require.Equal(t, l.complete(), after)
		})
	}
}

// Several members are restored at once below a directory that does not exist, and
// that calls which fail remove again.
func TestTargetSiblings(t *testing.T) {
	for range 20 {
		root := t.TempDir()
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() {
				cfg := durable.TargetConfig{Dir: filepath.Join(root, "a", "b", string(rune('0'+i)))}
				if i == 0 {
					errs[i] = publish(wrap(), cfg)
					return
				}
				for range 4 {
					target, err := durable.Open(wrap(), cfg)
					if err == nil {
						err = target.Cleanup()
					}
					errs[i] = errors.Join(errs[i], err)
				}
			})
		}
		wg.Wait()
		require.NoError(t, errors.Join(errs...))
		require.Len(t, list(t, root), 9)
	}
}

func TestTargetWithoutLocks(t *testing.T) {
	fsys := without{FS: durable.OS, lock: errors.ErrUnsupported}
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			root := l.prepare(t)
			first, err := durable.Open(fsys, l.config(root))
			require.NoError(t, err)
			before := list(t, root)
			err = publish(fsys, l.config(root))
			require.ErrorIs(t, err, durable.ErrInUse)
			require.ErrorContains(t, err, "no locks")
			require.Equal(t, before, list(t, root))
			require.NoError(t, first.Cleanup())
			require.NoError(t, publish(fsys, l.config(root)))
			require.Equal(t, l.complete(), list(t, root))
		})
	}
}

// Where there are no locks, a call finds that out only in the directory of
// another one. It may not leave there what the other then cannot remove.
func TestTargetWithoutLocksMeanwhile(t *testing.T) {
	for _, l := range layouts {
		for _, kind := range []string{"create", "mkdir", "remove", "unlock"} {
			t.Run(l.name+"/"+kind, func(t *testing.T) {
				root := l.prepare(t)
				before := list(t, root)
				cfg := l.config(root)
				meanwhile := func() {
					err := publish(without{FS: wrap(), lock: errors.ErrUnsupported}, cfg)
					require.True(t, errors.Is(err, durable.ErrInUse) || errors.Is(err, durable.ErrExists), "%v", err)
				}
				busy := false
				fsys := without{lock: errors.ErrUnsupported, FS: wrap(hookFunc(func(op durabletest.Op) error {
					ours := strings.HasSuffix(filepath.Dir(op.Path), intoLock) || strings.HasSuffix(op.Path, intoLock)
					if _, err := os.Lstat(op.Path); op.Kind == kind && ours && !busy && (kind != "mkdir" || err == nil) {
						busy = true
						meanwhile()
						busy = false
					}
					return nil
				}))}
				target, err := durable.Open(fsys, cfg)
				require.NoError(t, err)
				require.NoError(t, target.Cleanup())
				require.Equal(t, before, list(t, root))
				require.NoError(t, publish(fsys, cfg))
				require.Equal(t, l.complete(), list(t, root))
			})
		}
		t.Run(l.name+"/half way", func(t *testing.T) {
			root := l.prepare(t)
			before := list(t, root)
			made := map[string]bool{} // what another call is about to remove again
			fsys := without{lock: errors.ErrUnsupported, FS: wrap(hookFunc(func(op durabletest.Op) error {
				if op.Kind == "remove" && strings.HasSuffix(op.Path, intoLock) && !made[op.Path] {
					made[op.Path] = true
					return os.WriteFile(filepath.Join(op.Path, "lock"), nil, 0o600)
				}
				return nil
			}))}
			target, err := durable.Open(fsys, l.config(root))
			require.NoError(t, err)
			require.NoError(t, target.Cleanup())
			require.NotEmpty(t, made)
			require.Equal(t, before, list(t, root))
		})
	}
}

const intoLock = ".restore"
