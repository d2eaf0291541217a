package systemtest_test

// The test program run once more as a child: to be traced, limited or killed, or
// to be an etcd in a process of its own. Other files use it.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
)

// childJob in the environment makes the test binary do one job and exit.
const childJob = "SNAPSHOT_TEST_CHILD"

// job is what a child is to do: carry out an operation, or be an etcd.
type job struct {
	Op       string // name of the operation
	Root     string
	Endpoint string // for Save
	Umask    *int   // of the process, unless nil
	Exhaust  bool   // leave no descriptor from the first report of progress on
	Hang     bool   // say so at the first report, and wait for the end

	Member *member // until standard input ends
}

// member is an etcd: the fields of snaptest.Config of the same names.
type member struct {
	Name, DataDir, WALDir, PeerURL, InitialCluster string

	Load bool // it is written to all the time
}

// answer is what a child prints: after the operation, or when etcd serves.
type outcome struct {
	Err      string          // empty on success
	Errno    []syscall.Errno // those that Err matches
	Endpoint string          // of the etcd
}

func init() {
	if os.Getenv(childJob) != "" {
		// The system calls of the operation come from one thread: a tracer
		// counts those of each thread by itself.
		runtime.LockOSThread()
	}
}

func TestMain(tests *testing.M) {
	text := os.Getenv(childJob)
	if text == "" {
		os.Exit(tests.Run())
	}
	var j job
	err := json.Unmarshal([]byte(text), &j)
	switch {
	case err != nil:
	case j.Member != nil:
		err = j.Member.serve()
	default:
		err = printOutcome(j.operate())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func printOutcome(a outcome) error { return json.NewEncoder(os.Stdout).Encode(a) }

func (j job) operate() outcome {
	for _, op := range append(restores(nil), saves(clientOf(j.Endpoint))...) {
		if op.name != j.Op {
			continue
		}
		err := op.run(snapshot.New(constrain(j)...), j.Root)
		if err == nil {
			return outcome{}
		}
		a := outcome{Err: err.Error()}
		for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EINTR, syscall.ENOMEM} {
			if errors.Is(err, errno) {
				a.Errno = append(a.Errno, errno)
			}
		}
		return a
	}
	return outcome{Err: "no operation " + j.Op}
}

func (m member) serve() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	e, err := snaptest.Run(ctx, snaptest.Config{
		Name: m.Name, DataDir: m.DataDir, WALDir: m.WALDir, PeerURL: m.PeerURL, InitialCluster: m.InitialCluster,
	})
	if err != nil {
		return err
	}
	defer e.Stop()
	loaded := make(chan error, 1)
	if m.Load {
		go func() { loaded <- writeLoad(ctx, e.Client()) }()
	}
	if err := printOutcome(outcome{Endpoint: e.Endpoint()}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	cancel()
	if m.Load {
		if lerr := <-loaded; !errors.Is(lerr, context.Canceled) {
			err = errors.Join(err, fmt.Errorf("load: %w", lerr))
		}
	}
	return err
}

// writeLoad changes keys until ctx ends: with puts, deletes, transactions and a
// lease.
func writeLoad(ctx context.Context, cli *clientv3.Client) error {
	lease, err := cli.Grant(ctx, 7200)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(1, 2))
	key := func() string { return fmt.Sprintf("key/%03d", rng.IntN(500)) }
	value := func() string { return string(snaptest.Opaque(rng.IntN(4000))) }
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for err == nil {
		select {
		case <-pace.C:
		case <-ctx.Done():
		}
		switch rng.IntN(8) {
		case 0, 1:
			_, err = cli.Delete(ctx, key())
		case 2:
			_, err = cli.Put(ctx, key(), value(), clientv3.WithLease(lease.ID))
		case 3:
			_, err = cli.Txn(ctx).Then(clientv3.OpPut("txn/a", value()), clientv3.OpDelete(key()), clientv3.OpPut("txn/b", value())).Commit()
		default:
			_, err = cli.Put(ctx, key(), value())
		}
	}
	return err
}

// childCommand is this test program, to be run once more for a job.
func childCommand(j job, env ...string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(append(os.Environ(), env...), childJob+"="+string(text))
	return cmd, nil
}

// runChild runs a job to its end.
func runChild(t *testing.T, j job, env ...string) outcome {
	t.Helper()
	cmd, err := childCommand(j, env...)
	require.NoError(t, err)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	var a outcome
	require.NoError(t, json.Unmarshal(out, &a), "%s%s", out, &stderr)
	return a
}

// startMember runs an etcd in a process of its own, so that what this process
// uses is what the library uses.
func startMember(m member) (endpoint string, stop func() error, err error) {
	cmd, err := childCommand(job{Member: &m})
	if err != nil {
		return "", nil, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	var a outcome
	if err := json.NewDecoder(stdout).Decode(&a); err != nil {
		return "", nil, errors.Join(err, stdin.Close(), cmd.Wait(), errors.New(stderr.String()))
	}
	return a.Endpoint, func() error {
		if err := errors.Join(stdin.Close(), cmd.Wait()); err != nil {
			return fmt.Errorf("etcd: %w\n%s", err, stderr.String())
		}
		return nil
	}, nil
}

// clientOf reaches an etcd of which only the URL is known.
func clientOf(endpoint string) clientv3.Config {
	return clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()}
}
