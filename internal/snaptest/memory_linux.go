package snaptest

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// WritableMemory returns how many bytes the process has mapped writable that do not
// belong to a file.
func WritableMemory(tb testing.TB) (n int64) {
	tb.Helper()
	mappings, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(mappings)) {
		var from, to, off, inode int64
		var mode, device string
		_, err := fmt.Sscanf(line, "%x-%x %s %x %s %d", &from, &to, &mode, &off, &device, &inode)
		if err == nil && mode == "rw-p" && inode == 0 {
			n += to - from
		}
	}
	if n == 0 {
		tb.Fatalf("nothing is mapped:\n%s", mappings)
	}
	return n
}
