package snaptest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"
)

// leakPatience bounds how long NoLeaks waits for what is on its way out.
var leakPatience = 10 * time.Second

// NoLeaks notes the goroutines and, on Linux, the open files of the process,
// and fails the test if there are more of them when it ends. Call it first, so
// that its check runs after all other cleanups; not in parallel tests.
func NoLeaks(tb testing.TB) {
	tb.Helper()
	goroutines, files := runtime.NumGoroutine(), openFiles()
	tb.Cleanup(func() {
		deadline := time.Now().Add(leakPatience)
		for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
			leak := leaked(goroutines, files)
			if leak == "" {
				return
			}
			if time.Now().After(deadline) {
				tb.Errorf("left behind: %s", leak)
				return
			}
			time.Sleep(pause)
		}
	})
}

func leaked(goroutines int, files []string) string {
	var b strings.Builder
	if now := runtime.NumGoroutine(); now > goroutines {
		fmt.Fprintf(&b, "goroutines: got %d, want %d\n", now, goroutines)
		_ = pprof.Lookup("goroutine").WriteTo(&b, 1)
	}
	if now := openFiles(); len(now) > len(files) {
		fmt.Fprintf(&b, "open files: got %d, want %d\n", len(now), len(files))
		for _, f := range now {
			if !slices.Contains(files, f) {
				fmt.Fprintln(&b, f)
			}
		}
	}
	return b.String()
}

// openFiles lists what the descriptors of the process refer to. Go's poller
// opens two of its own at first use, which are no leak.
func openFiles() []string {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	var files []string
	for _, fd := range fds {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name()))
		if err != nil || strings.HasPrefix(target, "anon_inode:[event") {
			continue
		}
		if target == "/proc/self/fd" || strings.HasPrefix(target, fmt.Sprintf("/proc/%d/fd", os.Getpid())) {
			continue
		}
		files = append(files, target)
	}
	return files
}

// TreeList lists what is below dir, sorted, directories with a final slash, the
// paths relative to dir and with forward slashes. A dir that does not exist
// holds nothing.
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
