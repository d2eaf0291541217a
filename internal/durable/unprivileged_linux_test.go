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

// otherUser is an unprivileged user who owns no files.
const otherUser = 65534

// asUnprivileged saves a file or publishes a target as otherUser, and prints the
// error.
func asUnprivileged(what, path string) {
	err := syscall.Setgroups(nil)
	if err == nil {
		err = syscall.Setgid(otherUser)
	}
	if err == nil {
		err = syscall.Setuid(otherUser)
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

// lateFS shows no file at path until one is staged beside it.
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

// runUnprivileged runs asUnprivileged in a process of its own and returns its
// output.
func runUnprivileged(t *testing.T, what, path string) string {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe, what, path)
	cmd.Env = append(os.Environ(), childRole+"="+unprivilegedRole)
	var stderr strings.Builder // may hold complaints about coverage files
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s%s", out, &stderr)
	return string(out)
}

// dirForOtherUser returns a directory that another user can enter.
func dirForOtherUser(t *testing.T, perm os.FileMode) string {
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

// A sticky directory protects a file from other users. Their attempt to replace it
// must not leave a second name of it there, which could not be removed.
func TestFileInStickyDirectory(t *testing.T) {
	root := dirForOtherUser(t, 0o777|os.ModeSticky)
	file := filepath.Join(root, "db")
	require.NoError(t, os.WriteFile(file, []byte("old"), 0o600))
	require.NoError(t, os.Chmod(file, 0o666)) // or protected_hardlinks is in the way

	require.Equal(t, "replace "+file+": permission denied\n", runUnprivileged(t, "file", file))
	require.Equal(t, listing{"db": "old"}, list(t, root))
	require.Equal(t, "keep the old file: replace "+file+": permission denied\n", runUnprivileged(t, "late file", file))
	require.Equal(t, listing{"db": "old"}, list(t, root))
	for range 2 { // a file of the same user can be replaced
		require.Equal(t, "<nil>\n", runUnprivileged(t, "file", filepath.Join(root, "own")))
	}
	require.Equal(t, listing{"db": "old", "own": "new"}, list(t, root))
}

// A directory that cannot be read cannot be synced. The error comes before anything
// is staged, while everything can still be removed.
func TestTargetInUnreadableDirectory(t *testing.T) {
	root := dirForOtherUser(t, 0o333)
	require.Contains(t, runUnprivileged(t, "target", filepath.Join(root, "data")), "permission denied")
	require.Empty(t, list(t, root))
}

// An unprivileged user can do nothing in a directory without permissions.
func TestUmaskOfAnotherUser(t *testing.T) {
	root := dirForOtherUser(t, 0o700)
	require.NoError(t, os.Chown(root, otherUser, otherUser))
	require.Equal(t, "<nil>\n", runUnprivileged(t, "umask", root))
	requireSavedAndPublished(t, root)
}
