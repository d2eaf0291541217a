package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Shares of a file that must be, and may be, in the page cache for a run to
// count as warm and as cold. The kernel keeps the odd page busy.
const (
	warmShare = 0.999
	coldShare = 0.001
)

// warm reads path once and returns the share of its pages that are then in the
// page cache. Less than all means that memory is too small for a warm run.
func warm(path string) (float64, error) {
	if _, err := readOnce(path); err != nil {
		return 0, err
	}
	return residentShare(path)
}

// cool drops the pages of path from the page cache, which needs no privilege
// for a clean file, and returns the share that is left. More than coldShare is
// an error.
func cool(path string) (share float64, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// Dirty pages are not dropped.
	if err := f.Sync(); err != nil {
		return 0, err
	}
	for range 20 {
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			return 0, fmt.Errorf("drop the pages of %s: %w", path, err)
		}
		if share, err = residentShare(path); err != nil || share <= coldShare {
			return share, err
		}
	}
	return share, fmt.Errorf("%.1f%% of %s stay in the page cache", 100*share, path)
}

// residentShare asks mincore(2) which share of the pages of path is in the
// page cache.
func residentShare(path string) (share float64, err error) {
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
			return 0, fmt.Errorf("ask for the cached pages of %s: %w", path, err)
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
	if err := mincore(m, vec); err != nil {
		return 0, 0, err
	}
	for _, v := range vec {
		resident += int64(v & 1)
	}
	return resident, pages, nil
}

// readOnce reads path from end to end into one small buffer and returns the
// number of bytes.
func readOnce(path string) (n int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, 1<<20)
	for {
		k, err := f.Read(buf)
		n += int64(k)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
