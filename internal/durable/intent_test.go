package durable_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// killBetween leaves what a call leaves that is killed when its WAL directory is
// published and its data directory is not.
func killBetween(t *testing.T, l layout) (root string) {
	t.Helper()
	_, root = firstBetween(t, l)
	return root
}

// firstBetween is killBetween, and at which operation the call is killed.
func firstBetween(t *testing.T, l layout) (k int, root string) {
	t.Helper()
	for ; ; k++ {
		root = l.prepare(t)
		var rec durabletest.Recorder
		require.Error(t, publish(wrap(durabletest.KillAt(k), &rec), l.config(root)))
		if strings.Contains(rec.Trace(root), "publish ") {
			break
		}
	}
	require.False(t, l.committed(t, root))
	require.DirExists(t, l.config(root).WALDir)
	return k, root
}

// early are the layouts with a directory that is published before the data, one
// of them with -short.
func early() (list []layout) {
	for _, l := range layouts {
		if l.wal != "" {
			list = append(list, l)
		}
	}
	return list[:short.Or(len(list), 1)]
}

func TestEarlyWALIsRemoved(t *testing.T) {
	for _, l := range early() {
		t.Run(l.name, func(t *testing.T) {
			root := killBetween(t, l)
			var rec durabletest.Recorder
			require.NoError(t, publish(wrap(&rec), l.config(root)))
			require.Equal(t, l.complete(), list(t, root))
			golden(t, l.name+", mended", &rec, root)
		})
	}
}

// A WAL directory that was used, or only touched, is never removed.
func TestEarlyWALInUseStays(t *testing.T) {
	for name, touch := range map[string]func(t *testing.T, wal string){
		"appended": func(t *testing.T, wal string) {
			f, err := os.OpenFile(filepath.Join(wal, "0.wal"), os.O_WRONLY|os.O_APPEND, 0)
			require.NoError(t, err)
			_, err = f.WriteString("x")
			require.NoError(t, err)
			require.NoError(t, f.Close())
		},
		"overwritten": func(t *testing.T, wal string) {
			require.NoError(t, os.WriteFile(filepath.Join(wal, "0.wal"), []byte("Record record"), 0o600))
		},
		"file added": func(t *testing.T, wal string) {
			require.NoError(t, os.WriteFile(filepath.Join(wal, "1.wal"), nil, 0o600))
		},
		"file added below": func(t *testing.T, wal string) {
			require.NoError(t, os.WriteFile(filepath.Join(wal, "archive", "x"), nil, 0o600))
		},
		"directory added": func(t *testing.T, wal string) {
			require.NoError(t, os.Mkdir(filepath.Join(wal, "old"), 0o700))
		},
		"file removed": func(t *testing.T, wal string) {
			require.NoError(t, os.Remove(filepath.Join(wal, "0.wal")))
		},
		"directory removed": func(t *testing.T, wal string) {
			require.NoError(t, os.Remove(filepath.Join(wal, "archive")))
		},
		"renamed": func(t *testing.T, wal string) {
			require.NoError(t, os.Rename(filepath.Join(wal, "0.wal"), filepath.Join(wal, "1.wal")))
		},
		"link added": func(t *testing.T, wal string) {
			symlink(t, "0.wal", filepath.Join(wal, "1.wal"))
		},
		"replaced by a file": func(t *testing.T, wal string) {
			require.NoError(t, os.RemoveAll(wal))
			require.NoError(t, os.WriteFile(wal, nil, 0o600))
		},
	} {
		for _, l := range early() {
			t.Run(l.name+"/"+name, func(t *testing.T) {
				root := killBetween(t, l)
				wal := l.config(root).WALDir
				touch(t, wal)
				var before listing
				if info, err := os.Lstat(wal); err == nil && info.IsDir() {
					before = list(t, wal)
				}
				for range 2 {
					_, err := durable.Open(wrap(), l.config(root))
					require.ErrorIs(t, err, durable.ErrExists)
				}
				if before != nil {
					require.Equal(t, before, list(t, wal))
				}
				for path := range list(t, root) {
					require.NotContains(t, path, ".restore")
				}
			})
		}
	}
}

// Only the first part of a long file is read again.
func TestEarlyWALLongFile(t *testing.T) {
	l := layouts[1]
	const size = 4 << 20
	longer := hookFunc(func(op durabletest.Op) error {
		if op.Kind == "sync" && filepath.Base(op.Path) == "0.wal" {
			require.NoError(t, os.Truncate(op.Path, size))
		}
		return nil
	})
	for _, c := range []struct {
		name string
		off  int64
		kept bool
	}{{"untouched", -1, false}, {"within the prefix", 1<<20 - 1, true}, {"first record after ours", int64(len(segment)), true}} {
		t.Run(c.name, func(t *testing.T) {
			root := ""
			for k := 0; ; k++ {
				root = l.prepare(t)
				var rec durabletest.Recorder
				require.Error(t, publish(wrap(longer, durabletest.KillAt(k), &rec), l.config(root)))
				if strings.Contains(rec.Trace(root), "publish ") {
					break
				}
			}
			name := filepath.Join(root, l.wal, "0.wal")
			info, err := os.Stat(name)
			require.NoError(t, err)
			require.EqualValues(t, size, info.Size())
			if c.off >= 0 {
				f, err := os.OpenFile(name, os.O_WRONLY, 0)
				require.NoError(t, err)
				_, err = f.WriteAt([]byte("x"), c.off)
				require.NoError(t, err)
				require.NoError(t, f.Close())
			}
			err = publish(wrap(), l.config(root))
			if c.kept {
				require.ErrorIs(t, err, durable.ErrExists)
				require.FileExists(t, name)
			} else {
				require.NoError(t, err)
				require.Equal(t, l.complete(), list(t, root))
			}
		})
	}
}

// killCommitted leaves what a call leaves that is killed when everything is
// published and its intent is still there.
func killCommitted(t *testing.T, l layout) (root string) {
	t.Helper()
	for k := 0; ; k++ {
		root = l.prepare(t)
		require.Error(t, publish(wrap(durabletest.KillAt(k)), l.config(root)))
		if l.committed(t, root) {
			require.FileExists(t, filepath.Join(root, "log", ".wal.restore", "intent"))
			return root
		}
	}
}

// The data directory may be seen under another path by the next call, as a
// volume is in another container.
func TestCommittedUnderAnotherPath(t *testing.T) {
	l := layouts[1]
	root := killCommitted(t, l)
	require.NoError(t, os.Rename(filepath.Join(root, "srv"), filepath.Join(root, "mnt")))
	cfg := l.config(root)
	cfg.Dir = filepath.Join(root, "mnt", "data")
	require.ErrorIs(t, publish(wrap(), cfg), durable.ErrExists)
	got := list(t, root)
	require.Equal(t, segment, got["log/wal/0.wal"])
	require.Equal(t, db, got["mnt/data/member/snap/db"])
	require.Len(t, got, len(l.complete()))
}

// Nor does a call for another data directory take the WAL directory away.
func TestCommittedElsewhere(t *testing.T) {
	l := layouts[1]
	root := killCommitted(t, l)
	cfg := l.config(root)
	cfg.Dir = filepath.Join(root, "srv", "other")
	require.ErrorIs(t, publish(wrap(), cfg), durable.ErrExists)
	got := list(t, root)
	delete(got, "srv/.data.restore/") // of the target that was not called for
	delete(got, "srv/.data.restore/lock")
	require.Equal(t, l.complete(), got)
}

// A directory created at the target after the kill is not the commit.
func TestEmptyDirIsNoCommit(t *testing.T) {
	l := layouts[1]
	root := killBetween(t, l)
	cfg := l.config(root)
	require.NoError(t, os.Mkdir(cfg.Dir, 0o700))
	require.ErrorIs(t, publish(wrap(), cfg), durable.ErrExists)
	require.Equal(t, listing{"srv/": "", "srv/data/": "", "log/": ""}, list(t, root))

	root = killBetween(t, l)
	cfg = l.config(root)
	require.NoError(t, os.WriteFile(cfg.Dir, nil, 0o600))
	require.ErrorIs(t, publish(wrap(), cfg), durable.ErrExists)
	require.Equal(t, listing{"srv/": "", "srv/data": "", "log/": ""}, list(t, root))

	root = killBetween(t, l)
	cfg = l.config(root)
	require.NoError(t, os.Mkdir(cfg.Dir, 0o700))
	cfg.AllowEmptyDir = true
	require.NoError(t, publish(wrap(), cfg))
	require.Equal(t, l.complete(), list(t, root))
}

// A file that is not a valid intent has no effect.
func TestMalformedIntent(t *testing.T) {
	for name, content := range map[string]string{
		"torn":   `{"name":"wal","commit":"/x/me`,
		"empty":  ``,
		"escape": `{"name":"../victim","commit":"/x","content":[]}`,
		"dots":   `{"name":"..","commit":"/x","content":[]}`,
		"below":  `{"name":"wal/sub","commit":"/x","content":[]}`,
		"self":   `{"name":".","commit":"/x","content":[]}`,
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, dir := range []string{"victim", "log/wal/sub", "log/.wal.restore"} {
				require.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o700))
			}
			require.NoError(t, os.WriteFile(filepath.Join(root, "log/.wal.restore/intent"), []byte(content), 0o600))
			err := publish(wrap(), durable.TargetConfig{Dir: filepath.Join(root, "data"), WALDir: filepath.Join(root, "log", "wal")})
			require.ErrorIs(t, err, durable.ErrExists)
			require.Equal(t, listing{"victim/": "", "log/": "", "log/wal/": "", "log/wal/sub/": ""}, list(t, root))
		})
	}
}
