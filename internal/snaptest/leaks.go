package snaptest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// leakPatience bounds how long NoLeaks waits for goroutines and files to end.
var leakPatience = 10 * time.Second

// NoLeaks records the goroutines and, on Linux, the open files of the process,
// and fails the test if there are others when it ends. Call it first, so that its
// check runs after all other cleanups, and not in parallel tests.
func NoLeaks(tb testing.TB) {
	tb.Helper()
	goroutines, files := Goroutines(), OpenFiles()
	tb.Cleanup(func() {
		deadline := time.Now().Add(leakPatience)
		for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
			leak := leaked(goroutines, files)
			if leak == "" {
				return
			}
			if time.Now().After(deadline) {
				tb.Errorf("left behind:\n%s", leak)
				return
			}
			time.Sleep(pause)
		}
	})
}

// leaked compares goroutines and files by identity. With a count, one of an earlier
// test that ends meanwhile would hide one that leaks.
func leaked(before map[string]string, files map[string]int) string {
	var b strings.Builder
	for id, stack := range Goroutines() {
		if _, ok := before[id]; !ok {
			fmt.Fprintf(&b, "%s\n\n", stack)
		}
	}
	for name, n := range OpenFiles() {
		if n > files[name] {
			fmt.Fprintf(&b, "open file %s: got %d, want %d\n", name, n, files[name])
		}
	}
	return b.String()
}

// Goroutines returns the stack of each goroutine by its number, without the one that
// delivers signals: it starts when first needed and never ends.
func Goroutines() map[string]string {
	buf := make([]byte, 1<<20)
	n := runtime.Stack(buf, true)
	for n == len(buf) {
		buf = make([]byte, 2*len(buf))
		n = runtime.Stack(buf, true)
	}
	stacks := make(map[string]string)
	for stack := range strings.SplitSeq(string(buf[:n]), "\n\n") {
		if !strings.Contains(stack, "os/signal.loop") {
			stacks[goroutineID(stack)] = stack
		}
	}
	return stacks
}

// GoroutineID returns the number of the calling goroutine.
func GoroutineID() string {
	buf := make([]byte, 64)
	return goroutineID(string(buf[:runtime.Stack(buf, false)]))
}

func goroutineID(stack string) string {
	id, _, _ := strings.Cut(strings.TrimPrefix(stack, "goroutine "), " ")
	return id
}

// OpenFiles counts what the descriptors of the process refer to, if /proc shows
// them. It omits the two that Go's poller opens at first use.
func OpenFiles() map[string]int {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	files := make(map[string]int)
	for _, fd := range fds {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name()))
		if err != nil || strings.HasPrefix(target, "anon_inode:[event") {
			continue // the descriptor of this listing is closed by now
		}
		files[target]++
	}
	return files
}

// TreeList lists what is below dir, sorted, as paths relative to dir with forward
// slashes; directories end in a slash. The list is empty if dir does not exist.
func TreeList(tb testing.TB, dir string) []string {
	tb.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if path == dir && os.IsNotExist(err) {
				return nil
			}
			return err
		}
		if path == dir {
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			rel += "/"
		}
		names = append(names, rel)
		return nil
	})
	if err != nil {
		tb.Fatalf("list %s: %v", dir, err)
	}
	slices.Sort(names)
	return names
}
