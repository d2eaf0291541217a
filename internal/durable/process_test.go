package durable_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
)

// startChild runs this test binary in a role until it is ready, and returns
// what kills it.
func startChild(t *testing.T, role string, args ...string) (kill func()) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), childRole+"="+role)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	dead := false
	kill = func() {
		if dead {
			return
		}
		dead = true
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait() // says that it was killed
		_ = stdin.Close()
	}
	t.Cleanup(kill)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	return kill
}

func TestTargetOfAnotherProcess(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			root := l.prepare(t)
			cfg := l.config(root)
			mode := "new"
			if l.into {
				mode = "into"
			}
			kill := startChild(t, "target", cfg.Dir, cfg.WALDir, mode)

			running := list(t, root)
			fsys := wrap()
			require.ErrorIs(t, publish(fsys, cfg), durable.ErrInUse)
			require.Zero(t, fsys.CloseAll(), "files left open")
			require.Equal(t, running, list(t, root), "a running call was disturbed")

			kill()
			require.NotEqual(t, l.complete(), list(t, root))
			require.NoError(t, publish(durable.OS, cfg))
			require.Equal(t, l.complete(), list(t, root))
		})
	}
}

// Two targets may share a WAL directory by mistake.
func TestWALOfAnotherProcess(t *testing.T) {
	root := t.TempDir()
	wal := filepath.Join(root, "wal")
	startChild(t, "target", filepath.Join(root, "a"), wal, "new")
	before := list(t, root)
	err := publish(durable.OS, durable.TargetConfig{Dir: filepath.Join(root, "b"), WALDir: wal})
	require.ErrorIs(t, err, durable.ErrInUse)
	require.Equal(t, before, list(t, root))
}

func TestFileOfAnotherProcess(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "db")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	kill := startChild(t, "file", path)

	running := list(t, root)
	require.Len(t, running, 2)
	require.NoError(t, save(durable.OS, path, "new"))
	require.Len(t, list(t, root), 2, "the temporary of a running call was removed")

	kill()
	require.NoError(t, save(durable.OS, path, "newer"))
	require.Equal(t, listing{"db": "newer"}, list(t, root))
}
