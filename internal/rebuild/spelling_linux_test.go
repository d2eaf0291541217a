package rebuild_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/durable/durabletest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// NTFS, as a file system that really folds case.
func TestRestoreTwoSpellingsOnNTFS(t *testing.T) {
	dir := t.TempDir()
	image, mounted := filepath.Join(dir, "image"), filepath.Join(dir, "mounted")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 512<<20)) // sparse
	require.NoError(t, os.Mkdir(mounted, 0o700))
	for _, command := range [][]string{
		{"mkntfs", "-F", "-q", "-f", image},
		{"lowntfs-3g", image, mounted, "-o", "ignore_case"},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Skipf("no NTFS here: %v: %s", err, out)
		}
	}
	t.Cleanup(func() {
		out, err := exec.Command("umount", mounted).CombinedOutput()
		require.NoError(t, err, string(out))
	})
	root := filepath.Join(mounted, "Root")
	require.NoError(t, os.Mkdir(root, 0o700))
	var rec durabletest.Recorder
	m := apitest.OnFS(durabletest.Wrap(durable.OS, &rec), nil)
	requireSpellings(t, m, &rec, root)
}
