package systemtest_test

// What a process holds: open files, mappings, locks, goroutines, contexts. Other
// files use it.

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest"
)

// held is what the process has open and mapped below a directory.
type held struct {
	files map[string]int
	maps  map[string]int
}

func lookHeld(tb testing.TB, root string) held {
	tb.Helper()
	h := held{files: map[string]int{}, maps: map[string]int{}}
	for name, n := range snaptest.OpenFiles() {
		if strings.HasPrefix(name, root) || name == os.DevNull {
			h.files[name] = n
		}
	}
	mappings, err := os.ReadFile("/proc/self/maps")
	require.NoError(tb, err)
	for line := range strings.Lines(string(mappings)) {
		if i := strings.Index(line, root); i >= 0 {
			h.maps[strings.TrimSpace(line[i:])]++
		}
	}
	return h
}

// ownFrame is a call in the library, not in its tests.
var ownFrame = regexp.MustCompile(`^etcd\.example/snapshot(\.|/internal/(boltfile|bootstrap|crc32c|durable|filetype|flock|keyspace|trailer)\.)`)

// atWork returns the goroutines that have begun since and are within a function
// of the library. One that has told its caller that it is done may still be on
// the way out of the function that it began with.
func atWork(before map[string]string) []string {
	var busy []string
	for id, stack := range snaptest.Goroutines() {
		if _, ok := before[id]; ok {
			continue
		}
		var calls []string
		for line := range strings.Lines(stack) {
			if !strings.HasPrefix(line, "\t") && !strings.HasPrefix(line, "goroutine ") && !strings.HasPrefix(line, "created by ") {
				calls = append(calls, line)
			}
		}
		for i, call := range calls {
			if ownFrame.MatchString(call) && i < len(calls)-1 {
				busy = append(busy, stack)
				break
			}
		}
	}
	return busy
}

// heldContext counts the contexts that were made of it and have not ended.
type heldContext struct {
	context.Context
	done chan struct{}

	mu      sync.Mutex
	err     error
	next    int
	waiting map[int]func()
}

func newHeldContext() *heldContext {
	return &heldContext{Context: context.Background(), done: make(chan struct{}), waiting: map[int]func(){}}
}

func (c *heldContext) Done() <-chan struct{} { return c.done }

func (c *heldContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// AfterFunc is what package context calls for a context of another type.
func (c *heldContext) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		go f()
		return func() bool { return false }
	}
	id := c.next
	c.next++
	c.waiting[id] = f
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, ok := c.waiting[id]
		delete(c.waiting, id)
		return ok
	}
}

// end cancels the context.
func (c *heldContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = context.Canceled
	close(c.done)
	for _, f := range c.waiting {
		go f()
	}
	clear(c.waiting)
}

// held says how many wait for the end of the context.
func (c *heldContext) held() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting)
}

// lateOps is a hook that notes operations after the call has returned. Once
// hold is set, other goroutines than the caller's wait a moment before each, to
// see whether the call returns meanwhile.
type lateOps struct {
	caller string
	over   chan struct{}

	mu   sync.Mutex
	hold bool
	late []durabletest.Op
}

func newLateOps() *lateOps {
	return &lateOps{caller: snaptest.GoroutineID(), over: make(chan struct{})}
}

func (l *lateOps) holdBack() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hold = true
}

func (l *lateOps) Before(op durabletest.Op) error {
	l.mu.Lock()
	hold := l.hold
	l.mu.Unlock()
	if hold && snaptest.GoroutineID() != l.caller {
		select {
		case <-l.over:
		case <-time.After(20 * time.Millisecond):
		}
	}
	select {
	case <-l.over:
		l.mu.Lock()
		l.late = append(l.late, op)
		l.mu.Unlock()
	default:
	}
	return nil
}

func (*lateOps) After(durabletest.Op, error) {}

// copyDescriptors holds copies of the descriptors of files below root, as a
// process has that was just started and has not executed its program yet. They
// are closed when the test ends.
func copyDescriptors(tb testing.TB, root string) (closeAll func()) {
	tb.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(tb, err)
	var copies []int
	for _, fd := range fds {
		name := filepath.Join("/proc/self/fd", fd.Name())
		if target, err := os.Readlink(name); err != nil || !strings.HasPrefix(target, root) {
			continue
		}
		var n int
		for _, c := range fd.Name() {
			n = 10*n + int(c-'0')
		}
		if dup, err := unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			copies = append(copies, dup)
		}
	}
	return func() {
		for _, fd := range copies {
			_ = unix.Close(fd)
		}
	}
}

// requireUnlocked fails unless each file below root can be locked for writing.
func requireUnlocked(tb testing.TB, root string, msg ...any) {
	tb.Helper()
	require.NoError(tb, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != nil {
			err = &fs.PathError{Op: "lock", Path: path, Err: err}
		}
		return errors.Join(err, f.Close())
	}), msg...)
}

// requireSame fails unless as much is open and mapped as before.
func (h held) requireSame(tb testing.TB, root string, msg ...any) {
	tb.Helper()
	now := lookHeld(tb, root)
	require.True(tb, maps.Equal(h.files, now.files), "open: %v, before: %v %v", now.files, h.files, msg)
	require.True(tb, maps.Equal(h.maps, now.maps), "mapped: %v, before: %v %v", now.maps, h.maps, msg)
}
