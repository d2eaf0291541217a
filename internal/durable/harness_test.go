package durable_test

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
)

var (
	update = flag.Bool("update", false, "rewrite the golden traces")
	every  = flag.Bool("every", false, "try every pair of failures, not a sample")
)

// listing is what a directory holds: files with their content, directories
// with a slash at the end and links with their target.
type listing map[string]string

func list(t *testing.T, root string) listing {
	t.Helper()
	l := listing{}
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		switch {
		case d.IsDir():
			l[rel+"/"] = ""
		case d.Type()&fs.ModeSymlink != 0:
			l[rel], err = os.Readlink(path)
		default:
			var data []byte
			data, err = os.ReadFile(path)
			l[rel] = string(data)
		}
		return err
	}))
	return l
}

// layout is one way to lay out a target in a root directory.
type layout struct {
	name string
	into bool   // Dir exists
	dir  string // below root
	wal  string // below root, empty: there is no WALDir
}

var layouts = []layout{
	{name: "new", dir: "srv/data"},
	{name: "new, separate WAL", dir: "srv/data", wal: "log/wal"},
	{name: "existing", dir: "data", into: true},
	{name: "existing, separate WAL", dir: "data", into: true, wal: "log/wal"},
}

// prepare makes what is there before.
func (l layout) prepare(t *testing.T) (root string) {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	if l.into {
		require.NoError(t, os.MkdirAll(filepath.Join(root, l.dir, "lost+found"), 0o700))
	}
	return root
}

func (l layout) config(root string) durable.TargetConfig {
	cfg := durable.TargetConfig{Dir: filepath.Join(root, filepath.FromSlash(l.dir)), AllowEmptyDir: l.into}
	if l.wal != "" {
		cfg.WALDir = filepath.Join(root, filepath.FromSlash(l.wal))
	}
	return cfg
}

// db is long enough for a write of half of it to be noticed.
var db = strings.Repeat("bucket", 10)

const segment = "record record"

// complete is what root holds after a publication.
func (l layout) complete() listing {
	all := listing{}
	file := func(path, content string) {
		all[path] = content
		for dir := pathDir(path); dir != ""; dir = pathDir(dir) {
			all[dir+"/"] = ""
		}
	}
	file(l.dir+"/member/snap/db", db)
	wal := l.wal
	if wal == "" {
		wal = l.dir + "/member/wal"
	}
	file(wal+"/0.wal", segment)
	all[wal+"/archive/"] = ""
	if l.into {
		all[l.dir+"/lost+found/"] = ""
	}
	return all
}

func pathDir(path string) string {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)]
}

// publish does what a restore does.
func publish(fsys durable.FS, cfg durable.TargetConfig) (err error) {
	target, err := durable.Open(fsys, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Cleanup()) }()
	if err := fill(target.FS(), target); err != nil {
		return err
	}
	return target.Commit()
}

func fill(fsys durable.FS, target *durable.Target) error {
	snap := filepath.Join(target.TreeDir(), "member", "snap")
	wal := target.WALTreeDir()
	if wal == "" {
		wal = filepath.Join(target.TreeDir(), "member", "wal")
	}
	if err := durable.MkdirAll(fsys, snap); err != nil {
		return err
	}
	if err := durable.MkdirAll(fsys, filepath.Join(wal, "archive")); err != nil {
		return err
	}
	if err := write(fsys, filepath.Join(snap, "db"), db); err != nil {
		return err
	}
	return write(fsys, filepath.Join(wal, "0.wal"), segment)
}

func write(fsys durable.FS, name, content string) error {
	f, err := fsys.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := f.Write([]byte(content))
	if n < len(content) && err == nil {
		err = errShort
	}
	return errors.Join(err, f.Close())
}

var errShort = errors.New("short write noticed")

// committed reports whether the target is published.
func (l layout) committed(t *testing.T, root string) bool {
	t.Helper()
	_, err := os.Lstat(filepath.Join(root, l.dir, "member"))
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, err)
	}
	return err == nil
}

// requireWhole fails unless the target is there with everything it should have.
func (l layout) requireWhole(t *testing.T, root string) {
	t.Helper()
	got := list(t, root)
	for path, content := range l.complete() {
		require.Contains(t, got, path)
		require.Equal(t, content, got[path], path)
	}
}

// requireMended calls again after a kill or a power cut, as a user would, and
// fails unless that leads to the complete target and nothing else.
func (l layout) requireMended(t *testing.T, root string) {
	t.Helper()
	if l.committed(t, root) {
		l.requireWhole(t, root)
		require.ErrorIs(t, publish(wrap(), l.config(root)), durable.ErrExists)
	} else {
		require.NoError(t, publish(wrap(), l.config(root)))
	}
	require.Equal(t, l.complete(), list(t, root))
}

var (
	intentSize = regexp.MustCompile(`(?m)^(write .*/intent) \d+$`) // holds absolute paths
	goldenName = strings.NewReplacer(" ", "-", ",", "")
)

// golden compares a trace with the one in testdata.
func golden(t *testing.T, name string, rec *durabletest.Recorder, root string) {
	t.Helper()
	got := intentSize.ReplaceAllString(rec.Trace(root), "$1")
	path := filepath.Join("testdata", goldenName.Replace(name)+".trace")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

// wrap is the operating system with hooks, quick because it does not sync.
func wrap(hooks ...durabletest.Hook) *durabletest.FS {
	return durabletest.Wrap(durable.OS, hooks...).NoSync()
}

// saveAndPublish makes a file and directories below root.
func saveAndPublish(root string) error {
	if err := save(durable.OS, filepath.Join(root, "db"), "new"); err != nil {
		return err
	}
	return publish(durable.OS, layout{dir: "srv/data", wal: "log/wal"}.config(root))
}
