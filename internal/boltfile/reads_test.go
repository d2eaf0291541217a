package boltfile_test

import (
	"bytes"
	"io"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/snaptest"
)

// No read may fail unnoticed, whatever it is for.
func TestEveryReadFails(t *testing.T) {
	for name, b := range map[string][]byte{
		"branches": build(t, 1024, false, fill("a", 3000, 100)),
		"inline":   build(t, 4096, false, fill("a", 2, 10)),
		"nested":   build(t, 4096, false, nested),
		"freelist": build(t, 4096, true, fill("a", 3000, 100), drop("a", 3000, 2)),
		"long":     newFreelist(70_000).b,
		"large":    build(t, 4096, false, fill("a", 2, 5<<20)),
		"buckets":  build(t, 4096, false, largeAndNested),
		"64 KiB":   build(t, 64<<10, false, fill("a", 3000, 100)),
	} {
		t.Run(name, func(t *testing.T) {
			for _, fault := range []error{syscall.EIO, io.EOF} {
				for k := int64(0); ; k++ {
					r := &snaptest.FaultyReaderAt{ReaderAt: bytes.NewReader(b), FailAt: k, Err: fault}
					_, _, err := scan(r, int64(len(b)))
					if !r.Hit() {
						require.NoError(t, err)
						require.GreaterOrEqual(t, k, int64(3))
						break
					}
					var short *boltfile.ShortError
					if fault == io.EOF {
						require.ErrorAs(t, err, &short, "read %d", k)
					} else {
						require.ErrorIs(t, err, fault, "read %d", k)
					}
				}
			}
		})
	}
}
