package durable_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
)

func TestTargetPublished(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			root := l.prepare(t)
			require.NoError(t, publish(durable.OS, l.config(root)))
			require.Equal(t, l.complete(), list(t, root))
			if runtime.GOOS != "windows" {
				requirePerm(t, root)
			}
			require.ErrorIs(t, publish(durable.OS, l.config(root)), durable.ErrExists)
			require.Equal(t, l.complete(), list(t, root))
		})
	}
}

// requirePerm fails unless directories below root are 0700 and files 0600.
func requirePerm(t *testing.T, root string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := d.Info()
		require.NoError(t, err)
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = fs.ModeDir | 0o700
		}
		require.Equal(t, want, info.Mode(), path)
		return nil
	}))
}

func TestTargetTraces(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			root := l.prepare(t)
			var rec durabletest.Recorder
			require.NoError(t, publish(wrap(&rec), l.config(root)))
			golden(t, l.name, &rec, root)
		})
	}
}

func TestTargetInvisibleUntilCommit(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			root := l.prepare(t)
			before := list(t, root)
			cfg := l.config(root)
			target, err := durable.Open(durable.OS, cfg)
			require.NoError(t, err)
			require.NoError(t, fill(durable.OS, target))
			require.False(t, l.committed(t, root))
			if cfg.WALDir != "" {
				require.NoDirExists(t, cfg.WALDir)
			}
			require.NoError(t, target.Cleanup())
			require.Equal(t, before, list(t, root))
			require.NoError(t, target.Cleanup())
			require.ErrorIs(t, target.Commit(), fs.ErrClosed)
			require.Equal(t, before, list(t, root))
		})
	}
}

func TestTargetRefused(t *testing.T) {
	file := func(t *testing.T, path string) {
		require.NoError(t, os.WriteFile(path, nil, 0o600))
	}
	dir := func(t *testing.T, path string) {
		require.NoError(t, os.MkdirAll(path, 0o700))
	}
	for name, c := range map[string]struct {
		prepare func(t *testing.T, root string)
		dir     string
		wal     string
		into    bool
		want    error
	}{
		"directory":                  {prepare: func(t *testing.T, root string) { dir(t, root+"/data") }, want: durable.ErrExists},
		"file":                       {prepare: func(t *testing.T, root string) { file(t, root+"/data") }, want: durable.ErrExists},
		"file, empty allowed":        {prepare: func(t *testing.T, root string) { file(t, root+"/data") }, into: true, want: durable.ErrExists},
		"link":                       {prepare: func(t *testing.T, root string) { dir(t, root+"/vol"); symlink(t, "vol", root+"/data") }, want: durable.ErrExists},
		"dangling link":              {prepare: func(t *testing.T, root string) { symlink(t, "vol", root+"/data") }, want: durable.ErrExists},
		"dangling link, allowed":     {prepare: func(t *testing.T, root string) { symlink(t, "vol", root+"/data") }, into: true, want: durable.ErrExists},
		"link to a file, allowed":    {prepare: func(t *testing.T, root string) { file(t, root+"/f"); symlink(t, "f", root+"/data") }, into: true, want: durable.ErrExists},
		"not empty":                  {prepare: func(t *testing.T, root string) { dir(t, root+"/data"); file(t, root+"/data/x") }, into: true, want: durable.ErrExists},
		"WAL exists":                 {prepare: func(t *testing.T, root string) { dir(t, root+"/wal") }, wal: "wal", want: durable.ErrExists},
		"WAL is a file":              {prepare: func(t *testing.T, root string) { file(t, root+"/wal") }, wal: "wal", want: durable.ErrExists},
		"WAL is a link":              {prepare: func(t *testing.T, root string) { symlink(t, "vol", root+"/wal") }, wal: "wal", want: durable.ErrExists},
		"same":                       {wal: "data", want: durable.ErrNested},
		"same through a link":        {prepare: func(t *testing.T, root string) { symlink(t, ".", root+"/self") }, wal: "self/data", want: durable.ErrNested},
		"data in WAL":                {dir: "wal/data", wal: "wal", want: durable.ErrNested},
		"WAL in data":                {wal: "data/member/wal", want: durable.ErrNested},
		"WAL in data through a link": {prepare: func(t *testing.T, root string) { dir(t, root+"/vol"); symlink(t, "vol", root+"/data") }, wal: "vol/wal", into: true, want: durable.ErrNested},
		"WAL is the staging":         {wal: ".data.restore", want: durable.ErrNested},
		"WAL in staging":             {wal: ".data.restore/wal", want: durable.ErrNested},
		"WAL in inner staging":       {prepare: func(t *testing.T, root string) { dir(t, root+"/data") }, wal: "data/.restore/wal", into: true, want: durable.ErrNested},
		"WAL in lost+found":          {prepare: func(t *testing.T, root string) { dir(t, root+"/data") }, wal: "data/lost+found/wal", into: true, want: durable.ErrNested},
		"parent is a file":           {prepare: func(t *testing.T, root string) { file(t, root+"/f") }, dir: "f/data", want: syscall.ENOTDIR},
		"parent is a dangling link":  {prepare: func(t *testing.T, root string) { symlink(t, "vol", root+"/l") }, dir: "l/data", want: fs.ErrNotExist},
		"parent is a loop of links":  {prepare: func(t *testing.T, root string) { symlink(t, "l", root+"/l") }, dir: "l/data", want: nil},
		"staging is the user's":      {prepare: func(t *testing.T, root string) { dir(t, root+"/.data.restore/notes") }, want: nil},
		"staging is a file":          {prepare: func(t *testing.T, root string) { file(t, root+"/.data.restore") }, want: nil},
		"inner staging is a file":    {prepare: func(t *testing.T, root string) { dir(t, root+"/data"); file(t, root+"/data/.restore") }, into: true, want: nil},
		"exists, staging the user's": {prepare: func(t *testing.T, root string) { dir(t, root+"/data"); file(t, root+"/.data.restore") }, want: durable.ErrExists},
		"WAL staging is the user's":  {prepare: func(t *testing.T, root string) { dir(t, root+"/log/.wal.restore/notes") }, dir: "srv/data", wal: "log/wal", want: nil},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if c.prepare != nil {
				c.prepare(t, root)
			}
			before := list(t, root)
			cfg := durable.TargetConfig{Dir: filepath.Join(root, "data"), AllowEmptyDir: c.into}
			if c.dir != "" {
				cfg.Dir = filepath.Join(root, c.dir)
			}
			if c.wal != "" {
				cfg.WALDir = filepath.Join(root, c.wal)
			}
			_, err := durable.Open(durable.OS, cfg)
			require.Error(t, err)
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
			} else {
				require.NotErrorIs(t, err, durable.ErrExists)
				require.NotErrorIs(t, err, durable.ErrInUse)
			}
			if strings.Contains(name, "staging is") {
				require.ErrorContains(t, err, "in the way of staging")
			} else {
				require.NotContains(t, err.Error(), "in the way of staging")
			}
			require.Equal(t, before, list(t, root))
		})
	}
	_, err := durable.Open(durable.OS, durable.TargetConfig{})
	require.ErrorContains(t, err, "no directory given")
	_, err = durable.Open(durable.OS, durable.TargetConfig{Dir: filepath.VolumeName(os.TempDir()) + string(filepath.Separator)})
	require.ErrorIs(t, err, durable.ErrExists)
}

func symlink(t *testing.T, target, name string) {
	t.Helper()
	require.NoError(t, os.Symlink(target, name))
}

func TestTargetRefusalWritesNothing(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "data", "member"), 0o700))
	require.NoError(t, os.Mkdir(filepath.Join(root, "wal"), 0o700))
	for _, cfg := range []durable.TargetConfig{
		{Dir: filepath.Join(root, "data")},
		{Dir: filepath.Join(root, "data"), AllowEmptyDir: true},
		{Dir: filepath.Join(root, "data"), WALDir: filepath.Join(root, "wal"), AllowEmptyDir: true},
		{Dir: filepath.Join(root, "new", "data"), WALDir: filepath.Join(root, "wal")},
	} {
		var rec durabletest.Recorder
		_, err := durable.Open(wrap(&rec), cfg)
		require.ErrorIs(t, err, durable.ErrExists)
		require.Empty(t, rec.Trace(root))
	}
}

func TestTargetThroughLinks(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "vol", "empty"), 0o700))
	symlink(t, "vol", filepath.Join(root, "link"))
	symlink(t, "vol/empty", filepath.Join(root, "data"))

	require.NoError(t, publish(durable.OS, durable.TargetConfig{
		Dir: filepath.Join(root, "link", "more", "a"), WALDir: filepath.Join(root, "link", "w"),
	}))
	require.NoError(t, publish(durable.OS, durable.TargetConfig{Dir: filepath.Join(root, "data"), AllowEmptyDir: true}))

	got := list(t, root)
	require.Equal(t, db, got["vol/more/a/member/snap/db"])
	require.Equal(t, segment, got["vol/w/0.wal"])
	require.Equal(t, db, got["vol/empty/member/snap/db"])
	require.Equal(t, "vol", got["link"])
	require.Equal(t, "vol/empty", got["data"])
	for path := range got {
		require.NotContains(t, path, "restore")
	}
}

// Both directories are the same place, once called through a link.
func TestTargetInUseThroughLink(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(root, "vol"), 0o700))
	symlink(t, "vol", filepath.Join(root, "link"))
	target, err := durable.Open(durable.OS, durable.TargetConfig{Dir: filepath.Join(root, "vol", "data")})
	require.NoError(t, err)
	_, err = durable.Open(durable.OS, durable.TargetConfig{Dir: filepath.Join(root, "link", "data")})
	require.ErrorIs(t, err, durable.ErrInUse)
	require.NoError(t, target.Cleanup())
}

func TestTargetNames(t *testing.T) {
	for name, base := range map[string]string{
		"spaces":   "my data",
		"unicode":  "данные-數據",
		"long":     strings.Repeat("n", 255),
		"longish":  strings.Repeat("n", 201),
		"dot":      ".etcd",
		"ending":   "data.restore",
		"relative": "./x/../data",
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			t.Chdir(root)
			cfg := durable.TargetConfig{Dir: base, WALDir: filepath.Join("w", base)}
			require.NoError(t, publish(durable.OS, cfg))
			got := list(t, root)
			require.Equal(t, db, got[filepath.ToSlash(filepath.Clean(base))+"/member/snap/db"])
			require.Len(t, got, 8)
		})
	}
}

// Two long names that differ only at the end must not share a lock.
func TestTargetLongNamesDiffer(t *testing.T) {
	long := filepath.Join("/x", strings.Repeat("n", 254))
	require.NotEqual(t, durable.LockPath(long+"a"), durable.LockPath(long+"b"))
	require.LessOrEqual(t, len(filepath.Base(durable.LockPath(long+"a"))), 255)
}

func TestTargetReadOnlyParent(t *testing.T) {
	root := t.TempDir()
	readOnly := hookFunc(func(op durabletest.Op) error {
		switch op.Kind {
		case "mkdir", "create", "remove", "publish", "rename":
			if filepath.Dir(op.Path) == root {
				return syscall.EROFS
			}
		}
		return nil
	})
	_, err := durable.Open(wrap(readOnly), durable.TargetConfig{Dir: filepath.Join(root, "data")})
	require.ErrorIs(t, err, syscall.EROFS)

	// A mounted volume does not need its parent.
	require.NoError(t, os.Mkdir(filepath.Join(root, "data"), 0o700))
	require.NoError(t, publish(wrap(readOnly), durable.TargetConfig{Dir: filepath.Join(root, "data"), AllowEmptyDir: true}))
	require.Equal(t, db, list(t, root)["data/member/snap/db"])
}
