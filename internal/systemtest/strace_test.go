//go:build linux

package systemtest_test

// Every system call of a call fails, or is where the process is killed: the target
// is complete or absent, and the same call then succeeds. A run with strace tries a
// few; all with
// go test ./internal/systemtest -run 'TestEverySystemCall|TestSandbox' -every

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
)

var (
	// writeCalls are the system calls that change something, or make it durable.
	writeCalls = []string{
		"fsync", "fdatasync", "write", "pwrite64", "copy_file_range", "openat", "mkdirat", "renameat", "renameat2",
		"linkat", "unlinkat", "ftruncate", "fallocate", "sync_file_range", "mmap",
	}
	// readCalls are those that only look.
	readCalls = []string{"read", "pread64", "getdents64", "newfstatat", "fstat", "statfs", "flock", "close"}
)

// mustTell are the calls without which there is no success, unless a signal
// interrupted them. Others have a way around them, such as rmdir(2) after unlink(2).
var mustTell = []string{
	"fsync", "fdatasync", "write", "pwrite64", "copy_file_range", "mkdirat", "renameat", "renameat2", "linkat", "ftruncate",
	"fallocate", "sync_file_range",
}

// sysCall is the n-th call of its name, among those of one thread that touch
// path, or among all if path is empty.
type sysCall struct {
	name string
	path string // below the root
	n    int
}

func (c sysCall) String() string { return fmt.Sprintf("%s %s #%d", c.name, c.path, c.n) }

// injection is what strace does to a system call.
type injection struct {
	name  string
	errno syscall.Errno // 0: the process is killed instead
}

// Every system call of an operation fails, or is where the process is killed.
// This reaches the Go library as well. Without -every it is a few of
// them.
func TestEverySystemCallFails(t *testing.T) {
	tracer := newTracer(t)
	endpoint, ops := tracedOperations(t)
	total := 0
	for _, op := range ops {
		if !tracer.wants(op) {
			continue
		}
		t.Run(op.name, func(t *testing.T) {
			absent, complete := op.outcomes(t)
			j := job{Op: op.name, Endpoint: endpoint}
			calls := tracer.record(t, op, j)
			require.NotEmpty(t, calls)
			for _, call := range calls {
				for _, inject := range injections(call) {
					total++
					t.Run(fmt.Sprintf("%s/%s", call, inject.name), func(t *testing.T) {
						t.Parallel()
						tracer.inject(t, op, j, call, inject, absent, complete)
					})
				}
			}
		})
	}
	t.Logf("%d system calls that failed or were the last", total)
}

// A sandbox may deny system calls that there is a way without.
func TestSandbox(t *testing.T) {
	tracer := newTracer(t)
	endpoint, ops := tracedOperations(t)
	const denied = "copy_file_range,fadvise64,fallocate,linkat,renameat2,statfs,sync_file_range"
	for _, op := range ops {
		t.Run(op.name, func(t *testing.T) {
			_, complete := op.outcomes(t)
			j := job{Op: op.name, Endpoint: endpoint, Root: op.root(t)}
			stdout, stderr, log := tracer.run(t, j, "--seccomp-bpf", "-e", "trace="+denied, "-e", "inject="+denied+":error=EPERM")
			require.Contains(t, log, "(INJECTED)", "no call was made")
			var r outcome
			require.NoError(t, json.Unmarshal([]byte(stdout), &r), "no answer:\n%s\n%s", stderr, log)
			require.Empty(t, r.Err)
			requireListing(t, complete, j.Root, log)
		})
	}
}

// tracedOperations are a few restores and saves, and the server of the saves.
func tracedOperations(t *testing.T) (endpoint string, ops []operation) {
	t.Helper()
	db := snaptest.Opaque(1<<20 + 512)
	server := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(db) })
	endpoint = server.Endpoint()
	return endpoint, append(restores(smallSnapshot(t)), saves(clientOf(endpoint))...)
}

func injections(c sysCall) []injection {
	all := []injection{{"EIO", syscall.EIO}, {name: "SIGKILL"}}
	switch {
	case c.name == "mmap":
		all = append(all, injection{"ENOMEM", syscall.ENOMEM})
	case slices.Contains(writeCalls, c.name) && *every:
		all = append(all, injection{"ENOSPC", syscall.ENOSPC}, injection{"EINTR", syscall.EINTR})
	}
	return all
}

// tracer runs children under strace.
type tracer struct {
	strace string
	exe    string
	calls  []string
}

func newTracer(t *testing.T) *tracer {
	t.Helper()
	short.Skip(t, "traces children with strace")
	skip := t.Skipf
	if *every {
		skip = t.Fatalf
	}
	tr := &tracer{calls: []string{"fsync", "write", "pwrite64", "copy_file_range", "fallocate", "renameat", "renameat2", "linkat", "mmap"}}
	if *every {
		tr.calls = append(slices.Clone(writeCalls), readCalls...)
	}
	var err error
	if tr.strace, err = exec.LookPath("strace"); err != nil {
		skip("no system call was made to fail: %v", err)
	}
	tr.exe, err = os.Executable()
	require.NoError(t, err)
	out, err := exec.Command(tr.strace, "-f", "--seccomp-bpf", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=1", "-o", os.DevNull, "true").CombinedOutput()
	if err != nil {
		skip("no system call was made to fail: strace cannot trace here: %v: %s", err, out)
	}
	return tr
}

func (tr *tracer) wants(op operation) bool {
	switch op.name {
	case "Restore, new, separate WAL", "Save, replace":
		return true
	case "RestoreFrom, new, separate WAL", "RestoreFrom, existing", "RestoreFrom, existing, separate WAL":
		return false // only the copying differs from Restore
	}
	return *every
}

// run runs a job under strace and returns what it printed and strace's log.
func (tr *tracer) run(t *testing.T, j job, args ...string) (stdout, stderr, log string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	logFile := filepath.Join(t.TempDir(), "log")
	args = append([]string{"-f", "-y", "-s", "0", "-o", logFile}, args...)
	cmd := exec.CommandContext(ctx, tr.strace, append(args, tr.exe)...)
	text, err := json.Marshal(j)
	require.NoError(t, err)
	// One processor, so that no other thread takes a part of the work: the calls of
	// the first one are then the same each time. No collection of garbage, no
	// preemption: fewer system calls of Go's own.
	cmd.Env = append(os.Environ(), childJob+"="+string(text), "GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // strace ends as its child does, which may have been killed
	require.NoError(t, ctx.Err(), "hangs")
	content, err := os.ReadFile(logFile)
	require.NoError(t, err)
	return out.String(), errs.String(), string(content)
}

// record returns the system calls of op that touch something below its root.
func (tr *tracer) record(t *testing.T, op operation, j job) []sysCall {
	t.Helper()
	j.Root = op.root(t)
	stdout, stderr, log := tr.run(t, j, "--seccomp-bpf", "-e", "trace=execve,"+strings.Join(tr.calls, ","))
	var r outcome
	require.NoError(t, json.Unmarshal([]byte(stdout), &r), stderr)
	require.Empty(t, r.Err)
	return parseCalls(log, j.Root)
}

var (
	logLine    = regexp.MustCompile(`^(\d+) +([a-z0-9_]+)\((.*)$`)
	quotedPath = regexp.MustCompile(`"(/[^"]*)"`)
	openPath   = regexp.MustCompile(`\d<(/[^>]*)>`)
	returned   = regexp.MustCompile(`\) += .*$`)
	randomName = regexp.MustCompile(`\.[0-9a-f]{16}\.`)
)

// parseCalls reads a log of strace. It takes the calls of the first thread; only
// those of the read-ahead and the like come from others.
func parseCalls(log, root string) []sysCall {
	var calls []sysCall
	main := ""
	ofName, ofPath := map[string]int{}, map[string]int{}
	lines := bufio.NewScanner(strings.NewReader(log))
	for lines.Scan() {
		m := logLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		thread, name, args := m[1], m[2], returned.ReplaceAllString(m[3], "")
		if main == "" {
			main = thread // the one of execve
		}
		if thread != main {
			continue
		}
		ofName[name]++
		// Path arguments before those of open files, as strace has them.
		paths := append(quotedPath.FindAllStringSubmatch(args, -1), openPath.FindAllStringSubmatch(args, -1)...)
		first := ""
		for _, p := range paths {
			rel, err := filepath.Rel(root, p[1])
			if err != nil || !filepath.IsLocal(rel) {
				continue
			}
			ofPath[name+" "+rel]++
			if first == "" {
				first = rel
			}
		}
		switch {
		case first == "":
		case randomName.MatchString(first):
			calls = append(calls, sysCall{name: name, n: ofName[name]})
		default:
			calls = append(calls, sysCall{name: name, path: first, n: ofPath[name+" "+first]})
		}
	}
	return calls
}

// inject runs op in a child with one system call gone wrong, and fails unless
// the outcome is absent or complete, and the same call can simply be made again.
func (tr *tracer) inject(t *testing.T, op operation, j job, call sysCall, in injection, absent, complete listing) {
	j.Root = op.root(t)
	what := "signal=SIGKILL"
	args := []string{"-e", "trace=" + call.name}
	if in.errno != 0 {
		what = "error=" + in.name
		args = append(args, "--seccomp-bpf") // faster, and signals get lost
	}
	args = append(args, "-e", fmt.Sprintf("inject=%s:%s:when=%d", call.name, what, call.n))
	if call.path != "" {
		args = append(args, "-P", filepath.Join(j.Root, call.path))
	}
	stdout, stderr, log := tr.run(t, j, args...)

	if in.errno == 0 {
		require.Contains(t, log, "killed by SIGKILL", "the call was not made; it printed %s", stdout)
		requireOldOrNew(t, op, j.Root, absent, complete)
		op.requireMended(t, j.Root, complete)
		return
	}
	require.Contains(t, log, "(INJECTED)", "the call was not made")
	var r outcome
	require.NoError(t, json.Unmarshal([]byte(stdout), &r), "no answer:\n%s\n%s", stderr, log)
	if r.Err == "" {
		require.False(t, in.errno != syscall.EINTR && slices.Contains(mustTell, call.name), "%v failed without an error", call)
		requireListing(t, complete, j.Root, log)
		return
	}
	require.Contains(t, r.Errno, in.errno, "the cause got lost: %s", r.Err)
	requireListing(t, absent, j.Root, r.Err)
	require.NoError(t, op.run(apitest.Quick(), j.Root))
	requireListing(t, complete, j.Root)
}
