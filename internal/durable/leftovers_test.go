package durable_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// A fault while a call inspects what a killed one left ends that call. The next
// call still has all the information: it does not mistake the leftovers for the
// user's files, and does not remove them without their intent.
func TestFaultWhileLeftoversAreLookedAt(t *testing.T) {
	for name, isMoment := range map[string]func(l layout, root string) bool{
		"between": func(l layout, root string) bool {
			there, err := os.Stat(l.config(root).WALDir)
			return err == nil && there.IsDir()
		},
		"committed": func(l layout, root string) bool { return l.committed(t, root) },
	} {
		for _, l := range early() {
			moment := 0
			kill := func() (root string) {
				root = l.prepare(t)
				require.Error(t, publish(wrap(durabletest.KillAt(moment)), l.config(root)))
				return root
			}
			for !isMoment(l, kill()) {
				moment++
			}
			for fault, at := range map[string]func(k int) *durabletest.Faults{
				"once":     func(k int) *durabletest.Faults { return durabletest.FailAt(k, syscall.EIO) },
				"for good": func(k int) *durabletest.Faults { return durabletest.FailFrom(k, syscall.EIO) },
			} {
				t.Run(l.name+"/"+name+"/"+fault, func(t *testing.T) {
					for k := 0; ; k += short.Step(1, 5) {
						root := kill()
						f := at(k)
						fsys := wrap(f)
						err := publish(fsys, l.config(root))
						require.Zero(t, fsys.CloseAll(), "files left open")
						op, hit := f.Hit()
						if hit {
							require.ErrorIs(t, err, syscall.EIO, "%v", op)
						}
						l.requireMended(t, root)
						if !hit {
							return
						}
						require.NoDirExists(t, filepath.Join(root, "log", ".wal.restore"), "%v", op)
					}
				})
			}
		}
	}
}
