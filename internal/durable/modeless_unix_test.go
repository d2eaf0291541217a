//go:build unix

package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
)

// modeless shows everything as writable for everybody and, unless owner is -1,
// as owned by one user, whoever makes it with whatever permissions.
type modeless struct {
	durable.FS
	owner int
}

func (m modeless) show(name string, err error) error {
	if err == nil {
		err = os.Chmod(name, 0o777)
	}
	if err == nil && m.owner >= 0 {
		err = os.Chown(name, m.owner, m.owner)
	}
	return err
}

func (m modeless) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	f, err := m.FS.OpenFile(name, flag, perm)
	if err == nil && flag&os.O_CREATE != 0 {
		err = m.show(name, nil)
	}
	return f, err
}

func (m modeless) Mkdir(name string, perm fs.FileMode) error {
	return m.show(name, m.FS.Mkdir(name, perm))
}

// modelessOwners are owners that a file system may give everything.
func modelessOwners(t *testing.T) map[string]int {
	owners := map[string]int{"the process": -1}
	if os.Geteuid() == 0 {
		owners["another user"] = 1234
	} else {
		t.Log("only root can give a directory away")
	}
	return owners
}

// prepareModeless makes what is there before, for everybody to write to.
func prepareModeless(t *testing.T, l layout) (root string) {
	t.Helper()
	root = l.prepare(t)
	require.NoError(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		return modeless{owner: -1}.show(path, err)
	}))
	return root
}

// Where modes mean nothing, a killed call is still told from a running one, and
// no other user is suspected.
func TestTargetWithoutModes(t *testing.T) {
	for _, l := range layouts {
		for name, owner := range modelessOwners(t) {
			t.Run(l.name+"/"+name, func(t *testing.T) {
				fsys := modeless{FS: wrap(), owner: owner}
				forEachKill(t, l, func(first int) {
					root := prepareModeless(t, l)
					_ = publish(modeless{FS: wrap(durabletest.KillAt(first)), owner: owner}, l.config(root))
					err := publish(fsys, l.config(root))
					if !errors.Is(err, durable.ErrExists) { // killed after the commit
						require.NoError(t, err)
					}
					require.Equal(t, l.complete(), list(t, root))
				})

				root := prepareModeless(t, l)
				first, err := durable.Open(fsys, l.config(root))
				require.NoError(t, err)
				before := list(t, root)
				require.ErrorIs(t, publish(fsys, l.config(root)), durable.ErrInUse)
				require.Equal(t, before, list(t, root))
				require.NoError(t, first.Cleanup())
				require.NoError(t, publish(fsys, l.config(root)))
			})
		}
	}
}

// A file system that keeps no modes may keep owners.
func TestStagingOfAnotherUserWithoutModes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	root := prepareModeless(t, layout{})
	staging := filepath.Join(root, ".data.restore")
	require.NoError(t, modeless{FS: durable.OS, owner: 1234}.Mkdir(staging, 0o700))
	err := publish(modeless{FS: durable.OS, owner: -1}, durable.TargetConfig{Dir: filepath.Join(root, "data")})
	require.ErrorContains(t, err, "another user can write to it")
	require.Equal(t, listing{".data.restore/": ""}, list(t, root))
}

// The look at a file of one's own leaves nothing, whatever fails.
func TestProbeFaults(t *testing.T) {
	sweep(t, func(k int) *durabletest.Faults { return durabletest.FailAt(k, errShort) }, func(f *durabletest.Faults) {
		root := prepareModeless(t, layout{})
		require.NoError(t, modeless{FS: durable.OS, owner: -1}.Mkdir(filepath.Join(root, ".data.restore"), 0o700))
		fsys := wrap(f)
		target, err := durable.Open(modeless{FS: fsys, owner: -1}, durable.TargetConfig{Dir: filepath.Join(root, "data")})
		if err == nil {
			err = target.Cleanup()
		}
		if op, hit := f.Hit(); hit {
			require.ErrorIs(t, err, errShort)
			for name := range list(t, root) {
				require.NotContains(t, name, "trash-", "%v", op)
			}
			return
		}
		require.NoError(t, err)
		require.Empty(t, list(t, root))
	})
}
