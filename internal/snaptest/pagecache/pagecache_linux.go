// Package pagecache reports and changes which parts of a file are in the page cache.
// It is for tests and benchmarks.
package pagecache

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Drop asks the kernel to drop all pages of a file, which needs no privilege. The
// kernel keeps the odd page that is busy, and everything if files are in memory
// only.
func Drop(path string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Sync(); err != nil { // dirty pages are not dropped
		return err
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("drop the pages of %s: %w", path, err)
	}
	return nil
}

// MakeCold removes a file from the page cache, or skips the test if files are in
// memory only.
func MakeCold(tb testing.TB, path string) {
	tb.Helper()
	if err := Drop(path); err != nil {
		tb.Fatal(err)
	}
	share, err := Share(path)
	if err != nil {
		tb.Fatal(err)
	}
	if share == 1 {
		tb.Skip("temporary files are in memory: there is no disk to read from")
	}
}

// Share returns the share of the pages of a file that mincore(2) reports in the page
// cache, 1 for an empty file.
func Share(path string) (share float64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	const window = 1 << 30
	pageSize := int64(os.Getpagesize())
	var resident, pages int64
	for off := int64(0); off < info.Size(); off += window {
		length := min(window, info.Size()-off)
		n, total, err := residentPages(f, off, length, pageSize)
		if err != nil {
			return 0, fmt.Errorf("query the cached pages of %s: %w", path, err)
		}
		resident += n
		pages += total
	}
	if pages == 0 {
		return 1, nil
	}
	return float64(resident) / float64(pages), nil
}

func residentPages(f *os.File, off, length, pageSize int64) (resident, pages int64, err error) {
	m, err := unix.Mmap(int(f.Fd()), off, int(length), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, unix.Munmap(m)) }()
	pages = (length + pageSize - 1) / pageSize
	vec := make([]byte, pages)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(m))),
		uintptr(len(m)), uintptr(unsafe.Pointer(unsafe.SliceData(vec))))
	if errno != 0 {
		return 0, 0, errno
	}
	for _, v := range vec {
		resident += int64(v & 1)
	}
	return resident, pages, nil
}
