package snapshot_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// benchSnapshot is a file of some 100 MB with 60,000 keys, in the page cache.
func benchSnapshot(b *testing.B) (path string, size int64) {
	b.Helper()
	path = snaptest.NewDB().Large(60_000, 1500).Write(b, filepath.Join(b.TempDir(), "snapshot.db"), true)
	info, err := os.Stat(path)
	require.NoError(b, err)
	return path, info.Size()
}

func BenchmarkStatus(b *testing.B) {
	path, size := benchSnapshot(b)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		_, err := snapshot.New().Status(path)
		require.NoError(b, err)
	}
}

func BenchmarkVerify(b *testing.B) {
	path, size := benchSnapshot(b)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		_, err := snapshot.New().Verify(b.Context(), path)
		require.NoError(b, err)
	}
}

func BenchmarkRestore(b *testing.B) {
	path, size := benchSnapshot(b)
	for name, skip := range map[string]bool{"digest": false, "SkipHashCheck": true} {
		b.Run(name, func(b *testing.B) {
			cfg := apitest.Config(path, filepath.Join(b.TempDir(), "data"))
			cfg.SkipHashCheck = skip
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				require.NoError(b, snapshot.New().Restore(cfg))
				b.StopTimer()
				require.NoError(b, os.RemoveAll(cfg.OutputDataDir))
				b.StartTimer()
			}
		})
	}
}
