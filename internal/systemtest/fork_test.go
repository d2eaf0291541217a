//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package systemtest_test

// A process that the caller starts during a call inherits no lock. In every run.

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// forkingFS copies every descriptor when it is locked, as happens when another
// goroutine starts a process: until that executes its program it has them all.
type forkingFS struct {
	durable.FS
	t *testing.T
}

func (f forkingFS) TryLock(file durable.File) error {
	if err := f.FS.TryLock(file); err != nil {
		return err
	}
	fd, err := unix.Dup(int(file.(*os.File).Fd()))
	require.NoError(f.t, err)
	f.t.Cleanup(func() { require.NoError(f.t, unix.Close(fd)) })
	return nil
}

// A program that starts others meanwhile finds nothing locked when a call has
// returned.
func TestNoLockSurvivesInForkedProcess(t *testing.T) {
	m := apitest.OnFS(forkingFS{FS: durable.OS, t: t}, nil)
	for _, op := range operations(t, 1<<20) {
		t.Run(op.name, func(t *testing.T) {
			root := op.root(t)
			require.NoError(t, op.run(m, root))
			for path := range list(t, root) {
				f, err := os.Open(root + "/" + path)
				require.NoError(t, err)
				require.NoError(t, unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), path)
				require.NoError(t, f.Close())
			}
		})
	}
}
