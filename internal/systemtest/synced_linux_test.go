package systemtest_test

// System calls below the file system of the tests: everything is synced before a
// call returns, errors that the kernel reports once come back, and calls that may
// be missing are replaced. In every run with strace; to fail where it is missing:
// go test ./internal/systemtest -run 'TestEverythingIsSynced|TestErrorsThatAreToldOnce|TestMissingSystemCalls' -every

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/snaptest"
)

// changeCalls are those by which a tree changes, and those that make it durable.
const changeCalls = "openat,mkdirat,renameat,renameat2,linkat,unlinkat,write,pwrite64,copy_file_range,ftruncate,fallocate,fsync,fdatasync"

// unsynced follows a log of strace and returns the files and directories below
// root that were made or changed after they were last synced. What is gone does
// not count, nor that the second name of a file is removed, which the next call
// would remove.
func unsynced(t *testing.T, log, root string) []string {
	t.Helper()
	dirty := map[string]string{} // path: the call that changed it
	change := func(path, call string) {
		if path == root || strings.HasPrefix(path, root+"/") {
			dirty[path] = call
		}
	}
	gone := func(path string) {
		maps.DeleteFunc(dirty, func(at, _ string) bool { return at == path || strings.HasPrefix(at, path+"/") })
	}
	syncs := 0
	for _, c := range parseTrace(t, log) {
		switch c.name {
		case "openat":
			if strings.Contains(c.args, "O_CREAT") {
				change(c.paths[0], c.line)
				change(filepath.Dir(c.paths[0]), c.line)
			}
		case "mkdirat":
			change(c.paths[0], c.line)
			change(filepath.Dir(c.paths[0]), c.line)
		case "linkat":
			change(filepath.Dir(c.paths[1]), c.line)
		case "unlinkat":
			gone(c.paths[0])
			if !randomName.MatchString(c.paths[0]) {
				change(filepath.Dir(c.paths[0]), c.line)
			}
		case "renameat", "renameat2":
			moved := map[string]string{}
			for at, call := range dirty {
				if rest, ok := strings.CutPrefix(at, c.paths[0]); ok && (rest == "" || rest[0] == '/') {
					moved[c.paths[1]+rest] = call
				}
			}
			gone(c.paths[0])
			gone(c.paths[1])
			maps.Copy(dirty, moved)
			change(filepath.Dir(c.paths[0]), c.line)
			change(filepath.Dir(c.paths[1]), c.line)
		case "fsync", "fdatasync":
			syncs++
			require.NotEmpty(t, c.open, c.line)
			delete(dirty, c.open[0])
		default: // it writes to its only open file, copy_file_range to the second
			if n := len(c.open); n > 0 {
				change(c.open[n-1], c.line)
			}
		}
	}
	require.NotZero(t, syncs)
	var left []string
	for path, call := range dirty {
		left = append(left, fmt.Sprintf("%s: %s", path, call))
	}
	slices.Sort(left)
	return left
}

// tracedCall is a system call that succeeded.
type tracedCall struct {
	name, args, line string
	paths            []string // absolute ones among the arguments
	open             []string // what descriptors among the arguments refer to
}

var (
	unfinished = regexp.MustCompile(`^(\d+) +(.*) <unfinished \.\.\.>$`)
	resumed    = regexp.MustCompile(`^(\d+) +<\.\.\. ([a-z0-9_]+) resumed>(.*)$`)
	result     = regexp.MustCompile(`\) += (-?\d+)`)
)

// parseTrace returns the calls that succeeded, in the order in which they ended.
func parseTrace(t *testing.T, log string) []tracedCall {
	t.Helper()
	var calls []tracedCall
	begun := map[string]string{} // by thread
	lines := bufio.NewScanner(strings.NewReader(log))
	for lines.Scan() {
		line := lines.Text()
		if m := unfinished.FindStringSubmatch(line); m != nil {
			begun[m[1]] = m[1] + " " + m[2]
			continue
		}
		if m := resumed.FindStringSubmatch(line); m != nil {
			line = begun[m[1]] + m[3]
		}
		m, r := logLine.FindStringSubmatch(line), result.FindStringSubmatch(line)
		if m == nil || r == nil || strings.HasPrefix(r[1], "-") {
			continue
		}
		c := tracedCall{name: m[2], args: returned.ReplaceAllString(m[3], ""), line: line}
		for _, p := range quotedPath.FindAllStringSubmatch(c.args, -1) {
			c.paths = append(c.paths, p[1])
		}
		for _, p := range openPath.FindAllStringSubmatch(c.args, -1) {
			c.open = append(c.open, p[1])
		}
		calls = append(calls, c)
	}
	return calls
}

// Everything that a call has made or changed, the directories above included, is
// synced after its last change and before the call returns.
func TestEverythingIsSyncedBeforeTheReturn(t *testing.T) {
	tracer := newTracer(t)
	endpoint, ops := tracedOperations(t)
	for _, op := range ops {
		t.Run(op.name, func(t *testing.T) {
			t.Parallel()
			root := op.root(t)
			r, log := tracer.ask(t, job{Op: op.name, Endpoint: endpoint, Root: root}, "--seccomp-bpf", "-e", "trace="+changeCalls)
			require.Empty(t, r.Err)
			require.Empty(t, unsynced(t, log, root))
		})
	}
}

// ask runs a job under strace and returns its answer and strace's log.
func (tr *tracer) ask(t *testing.T, j job, args ...string) (outcome, string) {
	t.Helper()
	stdout, stderr, log := tr.run(t, j, args...)
	var r outcome
	require.NoError(t, json.Unmarshal([]byte(stdout), &r), "no answer:\n%s\n%s", stderr, log)
	return r, log
}

// The kernel tells an error of the disk once: to the call that waits for the
// data, the directory or the end of the file. Each must come back.
func TestErrorsThatAreToldOnce(t *testing.T) {
	tracer := newTracer(t)
	endpoint, ops := tracedOperations(t)
	for _, op := range ops {
		t.Run(op.name, func(t *testing.T) {
			t.Parallel()
			absent, _ := op.outcomes(t)
			j := job{Op: op.name, Endpoint: endpoint, Root: op.root(t)}
			r, log := tracer.ask(t, j, "--seccomp-bpf", "-e", "trace=openat,close,fsync,fdatasync,sync_file_range")
			require.Empty(t, r.Err)
			for _, c := range toldOnce(log, j.Root) {
				j := j
				j.Root = op.root(t)
				args := []string{"--seccomp-bpf", "-e", "trace=" + c.name}
				if c.name == "sync_file_range" { // from several threads
					args = append(args, "-e", "inject="+c.name+":error=EIO")
				} else {
					args = append(args, "-e", fmt.Sprintf("inject=%s:error=EIO:when=%d", c.name, c.n))
				}
				if c.path != "" {
					args = append(args, "-P", filepath.Join(j.Root, c.path))
				}
				r, log := tracer.ask(t, j, args...)
				require.Contains(t, log, "(INJECTED)", "%v was not made", c)
				require.Contains(t, r.Errno, syscall.EIO, "%v: %q", c, r.Err)
				requireListing(t, absent, j.Root, c)
			}
		})
	}
}

// toldOnce returns the calls of the first thread that sync something below root,
// or close a file there that was open for writing; and sync_file_range, if there
// was one.
func toldOnce(log, root string) (all []sysCall) {
	writable := map[string]bool{} // files that some descriptor can write to
	for line := range strings.Lines(log) {
		if m := quotedPath.FindStringSubmatch(line); m != nil && strings.Contains(line, "openat(") && !strings.Contains(line, "O_RDONLY") {
			if rel, err := filepath.Rel(root, m[1]); err == nil {
				writable[rel] = true
			}
		}
	}
	for _, c := range parseCalls(log, root) {
		base := filepath.Base(c.path)
		switch c.name {
		case "fsync", "fdatasync":
			all = append(all, c)
		case "close":
			// Where the name is not known in advance, or the file only a lock,
			// it does not matter what closing it says.
			if writable[c.path] && base != "lock" {
				all = append(all, c)
			}
		}
	}
	if strings.Contains(log, "sync_file_range(") {
		all = append(all, sysCall{name: "sync_file_range"})
	}
	return all
}

// mayBeMissing are the system calls that a kernel, a file system or a sandbox
// may not have, and that there is a way without.
var mayBeMissing = []string{
	"copy_file_range", "fadvise64", "fallocate", "flock", "linkat", "renameat2", "statfs", "sync_file_range",
}

// refusals are the answers by which they say so.
var refusals = []string{"ENOSYS", "EINVAL", "EOPNOTSUPP", "EPERM", "ENOLCK"}

// Each system call that may be missing is missing, in each way; and each is
// interrupted time and again.
func TestMissingSystemCalls(t *testing.T) {
	tracer := newTracer(t)
	db := snaptest.Opaque(26 << 20) // enough for what is dropped from the page cache
	server := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
		c.Chunk = 1 << 20
		return c.SendSnapshot(db)
	})
	var ops []operation
	for _, op := range append(restores(smallSnapshot(t)), saves(clientOf(server.Endpoint()))...) {
		switch op.name {
		case "Restore, new, separate WAL", "Save, replace":
			ops = append(ops, op)
		}
	}
	for _, op := range ops {
		_, complete := op.outcomes(t)
		j := job{Op: op.name, Endpoint: server.Endpoint()}
		for _, call := range mayBeMissing {
			traced := call
			if runtime.GOARCH == "386" { // where some have another name
				traced = map[string]string{"fadvise64": "fadvise64_64", "statfs": "statfs64"}[call]
				traced = cmp.Or(traced, call)
			}
			for _, errno := range append(slices.Clone(refusals), "EINTR") {
				t.Run(fmt.Sprintf("%s/%s/%s", op.name, call, errno), func(t *testing.T) {
					t.Parallel()
					j := j
					j.Root = op.root(t)
					when := ""
					if errno == "EINTR" {
						when = ":when=1+2" // and the next one goes well
					}
					r, log := tracer.ask(t, j, "--seccomp-bpf", "-e", "trace="+traced, "-e", "inject="+traced+":error="+errno+when)
					if !strings.Contains(log, traced+"(") {
						require.False(t, mustMake(op.name, call), "no call was made")
						t.Skip("the operation does not make this call")
					}
					require.Contains(t, log, "(INJECTED)")
					require.Empty(t, r.Err)
					requireListing(t, complete, j.Root, log)
				})
			}
		}
	}
}

// mustMake says which calls an operation makes on every Linux.
func mustMake(op, call string) bool {
	if strings.HasPrefix(op, "Save") {
		return slices.Contains([]string{"fadvise64", "flock", "linkat", "sync_file_range"}, call)
	}
	return slices.Contains([]string{"copy_file_range", "fallocate", "flock", "renameat2", "statfs", "sync_file_range"}, call)
}
