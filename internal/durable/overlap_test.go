package durable_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
)

// sameForm takes two spellings of one letter for the same, as file systems do
// that normalize Unicode. No name that is there shows which do.
func sameForm(a, b string) bool {
	composed := strings.NewReplacer("e\u0301", "\u00e9")
	return composed.Replace(a) == composed.Replace(b)
}

func TestWithin(t *testing.T) {
	folding := durabletest.Fold{FS: durable.OS, Same: strings.EqualFold}
	normalizing := durabletest.Fold{FS: durable.OS, Same: sameForm}
	for name, c := range map[string]struct {
		fsys      durable.FS
		dir, path string
		rel       string // empty: not within
	}{
		"itself":                        {durable.OS, "Dir", "Dir", "."},
		"below":                         {durable.OS, "Dir", "Dir/a/b", "a/b"},
		"above":                         {durable.OS, "Dir/a", "Dir", ""},
		"beside":                        {durable.OS, "Dir", "Dir2", ""},
		"another case":                  {durable.OS, "Dir", "dir", ""},
		"another case, missing":         {durable.OS, "New", "new", ""},
		"another case, both there":      {durable.OS, "both", "Both/x", ""},
		"folding, there":                {folding, "dir", "Dir", "."},
		"folding, below":                {folding, "Dir", "dir/Sub/x", "Sub/x"},
		"folding, missing":              {folding, "New", "new", "."},
		"folding, missing below":        {folding, "New/Dir", "new/dir/x", "x"},
		"folding, missing in another":   {folding, "dir/New", "Dir/new/x", "x"},
		"folding, beside":               {folding, "New", "new2", ""},
		"folding, above":                {folding, "New/x", "new", ""},
		"folding, nothing but digits":   {folding, "123/New", "123/new", "."},
		"folding, above a file":         {folding, "file/New", "file/new", "."},
		"normalizing, there":            {normalizing, "caf\u00e9", "cafe\u0301/x", "x"},
		"normalizing, above what is":    {normalizing, "caf\u00e9/New", "cafe\u0301/New", "."},
		"normalizing, nothing is known": {normalizing, "\u00e9", "e\u0301", ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, dir := range []string{"Dir", "123", "caf\u00e9"} {
				require.NoError(t, os.Mkdir(filepath.Join(root, dir), 0o700))
			}
			require.NoError(t, os.WriteFile(filepath.Join(root, "file"), nil, 0o600))
			if strings.Contains(name, "both there") {
				require.NoError(t, os.Mkdir(filepath.Join(root, "both"), 0o700))
				if os.Mkdir(filepath.Join(root, "Both"), 0o700) != nil {
					t.Skip("the file system does not tell them apart")
				}
			}
			rel, within, err := durable.Within(c.fsys, filepath.Join(root, c.dir), filepath.Join(root, c.path))
			require.NoError(t, err)
			require.Equal(t, c.rel != "", within)
			if within {
				require.Equal(t, c.rel, filepath.ToSlash(rel))
			}
		})
	}
}

// Two spellings of one path are found out before anything is written where names
// that are there show how the file system compares them, and otherwise when the
// directories above are made. Nothing is left.
func TestTargetTwoSpellings(t *testing.T) {
	for name, c := range map[string]struct {
		same     func(a, b string) bool
		dir, wal string
		into     bool
	}{
		"same":                     {strings.EqualFold, "x/Dir", "x/dir", false},
		"WAL above":                {strings.EqualFold, "x/Dir/data", "x/dir", false},
		"WAL below":                {strings.EqualFold, "x/Dir", "x/dir/wal", false},
		"same below":               {strings.EqualFold, "x/Dir/a", "x/dir/A", false},
		"WAL is the staging":       {strings.EqualFold, "x/Dir", "x/.dir.RESTORE", false},
		"existing, same":           {strings.EqualFold, "There", "there", true},
		"existing, WAL below":      {strings.EqualFold, "There", "there/wal", true},
		"another form, same":       {sameForm, "x/\u00e9", "x/e\u0301", false},
		"another form, WAL above":  {sameForm, "x/\u00e9/data", "x/e\u0301", false},
		"another form, WAL below":  {sameForm, "x/\u00e9", "x/e\u0301/wal", false},
		"another form, same below": {sameForm, "x/\u00e9/a", "x/e\u0301/a", false},
		"another form, staging":    {sameForm, "x/\u00e9", "x/.e\u0301.restore/wal", false},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			require.NoError(t, os.Mkdir(filepath.Join(root, "There"), 0o700))
			before := list(t, root)
			var rec durabletest.Recorder
			fsys := wrap(&rec)
			_, err := durable.Open(durabletest.Fold{FS: fsys, Same: c.same}, durable.TargetConfig{
				Dir: filepath.Join(root, c.dir), WALDir: filepath.Join(root, c.wal), AllowEmptyDir: c.into,
			})
			require.ErrorIs(t, err, durable.ErrNested)
			require.Equal(t, before, list(t, root))
			require.Zero(t, fsys.CloseAll())
			if !strings.HasPrefix(name, "another form") {
				require.Empty(t, rec.Trace(root))
			}
		})
	}
}

// Names that differ in case are two where the file system says so.
func TestTargetSpellingsApart(t *testing.T) {
	root := t.TempDir()
	err := publish(wrap(), durable.TargetConfig{Dir: filepath.Join(root, "Data"), WALDir: filepath.Join(root, "data")})
	if _, there := os.Lstat(strings.ToUpper(root)); there == nil {
		require.ErrorIs(t, err, durable.ErrNested)
		return
	}
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(root, "Data", "member", "snap", "db"))
	require.FileExists(t, filepath.Join(root, "data", "0.wal"))
}
