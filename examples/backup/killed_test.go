package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/snaptest"
)

// childArgs in the environment makes the test binary the program itself.
const childArgs = "BACKUP_TEST_ARGS"

func TestMain(m *testing.M) {
	args := os.Getenv(childArgs)
	if args == "" {
		os.Exit(m.Run())
	}
	if err := run(context.Background(), strings.Split(args, "\n"), io.Discard); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A save removes what a killed one left, but not the files of a running one.
func TestSaveAfterAKilledOne(t *testing.T) {
	db := snaptest.NewDB().Large(3000, 1000).Bytes(t, false)
	halfway := make(chan struct{}, 1)
	stalling := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
		err := c.SendPart(db[:len(db)/2], len(db), 0)
		halfway <- struct{}{}
		return errors.Join(err, c.Stall())
	})
	sound := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(db) })
	dir := filepath.Join(t.TempDir(), "[backups]") // a pattern, if it is taken for one
	next := []string{"save", "-endpoint", sound.Endpoint(), "-dir", dir}

	exe, err := os.Executable()
	require.NoError(t, err)
	killed := exec.Command(exe)
	killed.Env = append(os.Environ(), childArgs+"="+strings.Join([]string{"save", "-endpoint", stalling.Endpoint(), "-dir", dir}, "\n"))
	var stderr bytes.Buffer
	killed.Stderr = &stderr
	require.NoError(t, killed.Start())
	t.Cleanup(func() { _ = killed.Process.Kill() }) // in case the test ends early
	ended := make(chan error, 1)
	go func() { ended <- killed.Wait() }()
	select {
	case <-halfway:
	case err := <-ended:
		require.FailNow(t, "the save ended", "%v: %s", err, stderr.String())
	}

	working := backups(t, dir)
	require.Contains(t, working[0], partial)
	_, err = backup(next...)
	require.EqualError(t, err, "another backup is being saved to "+dir)
	require.Equal(t, working, backups(t, dir))

	require.NoError(t, killed.Process.Kill())
	require.Error(t, <-ended)
	require.Equal(t, working, backups(t, dir), "what the kill left")
	_, err = backup(next...)
	require.NoError(t, err)
	names := backups(t, dir)
	require.Len(t, names, 1)
	require.Contains(t, names[0], ".db.gz")
}
