package durabletest

import (
	"os"
	"os/exec"
	"testing"
)

// MountBindfs shows directory from at directory at, with options of bindfs,
// until the test ends. If that is not possible, it skips the test, unless the test
// is required.
func MountBindfs(tb testing.TB, required bool, from, at string, options ...string) {
	tb.Helper()
	skip := tb.Skipf
	if required {
		skip = tb.Fatalf
	}
	if _, err := exec.LookPath("bindfs"); err != nil {
		skip("no file system without modes was tried: %v", err)
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		skip("no file system without modes was tried: %v", err)
	}
	if out, err := exec.Command("bindfs", append(options, from, at)...).CombinedOutput(); err != nil {
		tb.Fatalf("bindfs: %v: %s", err, out)
	}
	tb.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			tb.Errorf("umount: %v: %s", err, out)
		}
	})
}
