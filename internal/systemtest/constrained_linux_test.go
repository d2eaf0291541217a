package systemtest_test

// Calls in a process with no free descriptors, any umask, no locks, or a file
// system without permissions. In every run that has strace and bindfs; to fail
// where they are missing:
// go test ./internal/systemtest -run 'TestDescriptorsRunOut|TestUmask|TestWithoutLocks|TestRestoreOnBindfs' -every

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// constrain does to the process what a job asks for.
func constrain(j job) []snapshot.Option {
	if j.Umask != nil {
		syscall.Umask(*j.Umask)
	}
	if j.Hang {
		return []snapshot.Option{snapshot.WithProgress(func(snapshot.Progress) {
			_ = printOutcome(outcome{}) // whoever waits for it sees that it does not come
			_, _ = io.Copy(io.Discard, os.Stdin)
		})}
	}
	if !j.Exhaust {
		return nil
	}
	var once sync.Once
	return []snapshot.Option{snapshot.WithProgress(func(snapshot.Progress) {
		once.Do(func() {
			go func() {
				for {
					exhaust() // what becomes free is taken at once
				}
			}()
		})
		exhaust()
	})}
}

// exhaust opens files until there is no descriptor left. They stay open.
func exhaust() {
	limit := syscall.Rlimit{Cur: 100, Max: 100}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		panic(err)
	}
	for {
		if _, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0); err != nil {
			return
		}
	}
}

// startHanging runs a job until it hangs, and returns what kills it.
func startHanging(t *testing.T, j job) (kill func()) {
	t.Helper()
	cmd, err := childCommand(j)
	require.NoError(t, err)
	_, err = cmd.StdinPipe() // which ends with this process at the latest
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	kill = sync.OnceFunc(func() {
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait() // says that it was killed
	})
	t.Cleanup(kill)
	var a outcome
	require.NoError(t, json.NewDecoder(stdout).Decode(&a))
	require.Empty(t, a.Err)
	return kill
}

// A process at its limit of descriptors leaves nothing after an error, and does
// what it can do without more.
func TestDescriptorsRunOut(t *testing.T) {
	endpoint, ops := tracedOperations(t)
	for _, op := range ops[:short.Or(len(ops), 1)] {
		t.Run(op.name, func(t *testing.T) {
			absent, complete := op.outcomes(t)
			root := op.root(t)
			a := runChild(t, job{Op: op.name, Root: root, Endpoint: endpoint, Exhaust: true})
			if a.Err == "" {
				require.Contains(t, op.name, "Save")
				requireListing(t, complete, root)
				return
			}
			require.Contains(t, a.Err, syscall.EMFILE.Error())
			requireListing(t, absent, root, a.Err)
			require.NoError(t, op.run(apitest.Quick(), root))
			requireListing(t, complete, root)
		})
	}
}

// Permissions are what the documentation says, whatever the umask.
func TestUmask(t *testing.T) {
	endpoint, ops := tracedOperations(t)
	for _, op := range ops[:short.Or(len(ops), 1)] {
		for _, mask := range []int{0, 0o400, 0o777} {
			t.Run(op.name, func(t *testing.T) {
				_, complete := op.outcomes(t)
				root := op.root(t)
				before := modes(t, root)
				a := runChild(t, job{Op: op.name, Root: root, Endpoint: endpoint, Umask: &mask})
				require.Empty(t, a.Err)
				requireListing(t, complete, root)
				for path, mode := range modes(t, root) {
					if _, ok := before[path]; ok && !strings.HasSuffix(path, "/db") {
						continue
					}
					want := fs.FileMode(0o600)
					if mode.IsDir() {
						want = fs.ModeDir | 0o700
					}
					require.Equal(t, want, mode, "umask %04o: %s", mask, path)
				}
			})
		}
	}
}

func modes(t *testing.T, root string) map[string]fs.FileMode {
	t.Helper()
	all := map[string]fs.FileMode{}
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		all[path] = info.Mode()
		return err
	}))
	return all
}

// A file system without locks, a kernel without them, a sandbox that denies them.
// Nothing that a call has to itself needs one.
func TestWithoutLocks(t *testing.T) {
	tracer := newTracer(t)
	endpoint, ops := tracedOperations(t)
	for _, errno := range []string{"ENOLCK", "ENOSYS", "EOPNOTSUPP", "EPERM"} {
		for _, op := range ops {
			t.Run(errno+"/"+op.name, func(t *testing.T) {
				absent, complete := op.outcomes(t)
				j := job{Op: op.name, Endpoint: endpoint, Root: op.root(t)}
				run := func() outcome {
					stdout, stderr, log := tracer.run(t, j, "--seccomp-bpf", "-e", "trace=flock", "-e", "inject=flock:error="+errno)
					require.Contains(t, log, "(INJECTED)", "no call was made")
					var a outcome
					require.NoError(t, json.Unmarshal([]byte(stdout), &a), "no answer:\n%s\n%s", stderr, log)
					return a
				}
				if strings.HasPrefix(op.name, "Restore") {
					// Nobody can tell what a killed call left from a running one.
					left := filepath.Join(j.Root, "srv", ".data.restore")
					if strings.Contains(op.name, "existing") {
						left = filepath.Join(j.Root, "data", ".restore")
					}
					require.NoError(t, os.MkdirAll(left, 0o700))
					a := run()
					require.Contains(t, a.Err, left+" exists and its file system has no locks; remove it if nothing is at work there")
					require.NoError(t, os.Remove(left))
					if err := os.Remove(filepath.Dir(left)); !errors.Is(err, syscall.ENOTEMPTY) {
						require.NoError(t, err)
					}
					requireListing(t, absent, j.Root)
				}
				a := run()
				if a.Err != "" {
					requireListing(t, absent, j.Root, a.Err)
				}
				require.Empty(t, a.Err)
				requireListing(t, complete, j.Root)
			})
		}
	}
}

// A file system that shows the same permissions for everything: a restore is
// killed, another finds it running, and the same call is made again.
func TestRestoreOnBindfs(t *testing.T) {
	short.Skip(t, "mounts bindfs")
	endpoint, ops := tracedOperations(t)
	for name, options := range map[string][]string{
		"no modes":  {"-p", "0777", "--chmod-ignore"},
		"no owners": {"-u", "1234", "-g", "1234"},
	} {
		t.Run(name, func(t *testing.T) {
			shown := filepath.Join(t.TempDir(), "shown")
			require.NoError(t, os.Mkdir(shown, 0o755))
			durabletest.MountBindfs(t, *every, t.TempDir(), shown, options...)
			for _, op := range ops {
				t.Run(op.name, func(t *testing.T) {
					_, complete := op.outcomes(t)
					root := filepath.Join(shown, goldenName.Replace(op.name))
					require.NoError(t, os.Mkdir(root, 0o777))
					op.prepare(t, root)
					kill := startHanging(t, job{Op: op.name, Root: root, Endpoint: endpoint, Hang: true})
					if strings.HasPrefix(op.name, "Restore") {
						running := list(t, root)
						require.ErrorIs(t, op.run(snapshot.New(), root), snapshot.ErrInUse)
						requireListing(t, running, root)
					}
					kill()
					require.NoError(t, op.run(snapshot.New(), root))
					requireListing(t, complete, root)
				})
			}
		})
	}
}
