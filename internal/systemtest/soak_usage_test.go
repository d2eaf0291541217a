package systemtest_test

// The memory, goroutines and descriptors that the soak watches.

import (
	"cmp"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// usage is what the process uses while no call is under way.
type usage struct {
	snapshots  int
	heap       uint64 // bytes
	resident   uint64 // bytes that are not file pages, 0 if unknown
	goroutines int
	files      int
}

func (u usage) String() string {
	return fmt.Sprintf("after %5d snapshots: heap %6.2f MiB, resident %6.2f MiB, %d goroutines, %d open files",
		u.snapshots, float64(u.heap)/(1<<20), float64(u.resident)/(1<<20), u.goroutines, u.files)
}

// usageWatch looks now and then at what the process uses.
type usageWatch struct {
	t    *testing.T
	soak *soak
	seen []usage
}

func newUsageWatch(t *testing.T, s *soak) *usageWatch { return &usageWatch{t: t, soak: s} }

// settled bounds how long what is on its way out may take.
const settled = 10 * time.Second

// look waits until no call is under way.
func (w *usageWatch) look() {
	w.soak.quiet.Lock()
	defer w.soak.quiet.Unlock()
	now := measure(w.soak.saved)
	if len(w.seen) > 0 {
		base := w.seen[0]
		for start := time.Now(); (now.goroutines > base.goroutines || now.files > base.files) && time.Since(start) < settled; {
			time.Sleep(10 * time.Millisecond)
			now = measure(w.soak.saved)
		}
	}
	w.seen = append(w.seen, now)
	w.t.Log(now)
}

func measure(snapshots int) usage {
	runtime.GC() // what pools hold goes the second time
	debug.FreeOSMemory()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	u := usage{snapshots: snapshots, heap: mem.HeapAlloc, goroutines: runtime.NumGoroutine(), resident: resident()}
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		u.files = len(entries)
	}
	return u
}

var anonymous = regexp.MustCompile(`(?m)^RssAnon:\s+(\d+) kB$`)

func resident() uint64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	m := anonymous.FindSubmatch(status)
	if m == nil {
		return 0
	}
	kib, _ := strconv.ParseUint(string(m[1]), 10, 64) // digits
	return kib << 10
}

// requireFlat compares the first look with all that follow. Under the race
// detector, which keeps a shadow of every page, resident memory takes a while to
// have all that it keeps: there its beginning is in the first half.
func (w *usageWatch) requireFlat() {
	w.t.Helper()
	const (
		heapSlack = 4 << 20
		// Less than what Status and Verify map for a snapshot each, times the
		// snapshots of the shortest run.
		residentSlack     = 8 << 20
		residentSlackRace = 48 << 20
	)
	base := w.seen[0]
	for _, u := range w.seen {
		require.LessOrEqual(w.t, u.goroutines, base.goroutines, u)
		require.LessOrEqual(w.t, u.files, base.files, u)
		require.LessOrEqual(w.t, u.heap, base.heap+heapSlack, u)
		if !raceDetector {
			require.LessOrEqual(w.t, u.resident, base.resident+residentSlack, u)
		}
	}
	half := len(w.seen) / 2
	grown := slices.MaxFunc(w.seen[:half+1], func(a, b usage) int { return cmp.Compare(a.resident, b.resident) })
	for _, u := range w.seen[half:] {
		require.LessOrEqual(w.t, u.resident, grown.resident+residentSlackRace, u)
	}
}
