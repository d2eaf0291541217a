package snaptest_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/snaptest"
)

// recorder is a testing.TB that records failures and does not report them.
type recorder struct {
	testing.TB
	cleanups []func()
	failed   bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Cleanup(f func())      { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(string, ...any) { r.failed = true }

func TestNoLeaks(t *testing.T) {
	ending := make(chan struct{})
	go func() { <-ending }() // stands for one of an earlier test
	for name, tc := range map[string]struct {
		leak func() (mend func())
		want bool
	}{
		"nothing": {func() func() { return func() {} }, false},
		"goroutine": {func() func() {
			stop := make(chan struct{})
			close(ending) // must not hide the one that leaks
			go func() { <-stop }()
			return func() { close(stop) }
		}, true},
		"file": {func() func() {
			f, err := os.Open(os.DevNull)
			require.NoError(t, err)
			return func() { _ = f.Close() }
		}, true},
		"goroutine that ends in time": {func() func() {
			go func() { time.Sleep(20 * time.Millisecond) }()
			return func() {}
		}, false},
	} {
		patience := 20 * time.Second
		if tc.want { // it is waited for to the end
			patience = 200 * time.Millisecond
		}
		snaptest.SetLeakPatience(t, patience)
		r := &recorder{TB: t}
		snaptest.NoLeaks(r)
		mend := tc.leak()
		r.cleanups[0]()
		mend()
		if name == "file" && len(snaptest.OpenFiles()) == 0 {
			continue // no /proc here
		}
		require.Equal(t, tc.want, r.failed, name)
	}
}

func TestTreeList(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "b", "c"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "b", "c", "d"), nil, 0o600))
	require.Equal(t, []string{"a", "b/", "b/c/", "b/c/d"}, snaptest.TreeList(t, dir))
	require.Empty(t, snaptest.TreeList(t, filepath.Join(dir, "none")))
}
