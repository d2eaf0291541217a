package durable_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
)

const nobody = 65534

// asNobody saves a file or publishes a target, and prints the error.
func asNobody(what, path string) {
	err := syscall.Setgroups(nil)
	if err == nil {
		err = syscall.Setgid(nobody)
	}
	if err == nil {
		err = syscall.Setuid(nobody)
	}
	switch {
	case err != nil:
	case what == "file":
		err = save(durable.OS, path, "new")
	case what == "umask":
		syscall.Umask(0o777)
		err = saveAndPublish(path)
	case what == "late file":
		err = save(&lateFS{FS: durable.OS, path: path}, path, "new")
	default:
		err = publish(durable.OS, durable.TargetConfig{Dir: path})
	}
	fmt.Println(err)
}

// lateFS has no file at path before one is staged beside it.
type lateFS struct {
	durable.FS
	path   string
	staged bool
}

func (f *lateFS) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	f.staged = true
	return f.FS.OpenFile(name, flag, perm)
}

func (f *lateFS) Lstat(name string) (fs.FileInfo, error) {
	if name == f.path && !f.staged {
		return nil, fs.ErrNotExist
	}
	return f.FS.Lstat(name)
}

// nobodySays runs asNobody.
func nobodySays(t *testing.T, what, path string) string {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe, what, path)
	cmd.Env = append(os.Environ(), childRole+"="+nobodyRole)
	var complaint strings.Builder // of the runtime too, which measures coverage
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	require.NoError(t, err, "%s%s", out, &complaint)
	return string(out)
}

// dirForNobody is a directory that another user can get into.
func dirForNobody(t *testing.T, perm os.FileMode) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	base := t.TempDir()
	for _, above := range []string{filepath.Dir(base), base} { // whatever the umask
		require.NoError(t, os.Chmod(above, 0o711))
	}
	dir := filepath.Join(base, "dir")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.Chmod(dir, perm))
	return dir
}

// A sticky directory keeps a file for its owner. Nobody else's attempt to
// replace it may leave a second name of it there, which could not be removed.
func TestFileInStickyDirectory(t *testing.T) {
	root := dirForNobody(t, 0o777|os.ModeSticky)
	file := filepath.Join(root, "db")
	require.NoError(t, os.WriteFile(file, []byte("old"), 0o600))
	require.NoError(t, os.Chmod(file, 0o666)) // or protected_hardlinks is in the way

	require.Equal(t, "replace "+file+": permission denied\n", nobodySays(t, "file", file))
	require.Equal(t, listing{"db": "old"}, list(t, root))
	require.Equal(t, "keep the old file: replace "+file+": permission denied\n", nobodySays(t, "late file", file))
	require.Equal(t, listing{"db": "old"}, list(t, root))
	for range 2 { // one's own can be replaced
		require.Equal(t, "<nil>\n", nobodySays(t, "file", filepath.Join(root, "own")))
	}
	require.Equal(t, listing{"db": "old", "own": "new"}, list(t, root))
}

// A directory that cannot be read cannot be synced. That is said before anything
// is staged, when all of it can still be removed.
func TestTargetInUnreadableDirectory(t *testing.T) {
	root := dirForNobody(t, 0o333)
	require.Contains(t, nobodySays(t, "target", filepath.Join(root, "data")), "permission denied")
	require.Empty(t, list(t, root))
}

// Whoever is not root can do nothing in a directory without permissions.
func TestUmaskOfAnotherUser(t *testing.T) {
	root := dirForNobody(t, 0o700)
	require.NoError(t, os.Chown(root, nobody, nobody))
	require.Equal(t, "<nil>\n", nobodySays(t, "umask", root))
	requireSavedAndPublished(t, root)
}
