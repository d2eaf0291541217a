package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"etcd.example/snapshot/internal/snaptest/pagecache"
)

// Shares of a file that must be, and may be, in the page cache for a run to
// count as warm and as cold. The kernel keeps the odd page busy.
const (
	warmShare = 0.999
	coldShare = 0.001
)

// warm reads path once and returns the share of its pages that are in the page cache
// afterwards. If it is below 1, memory is too small for a warm run.
func warm(path string) (float64, error) {
	if _, err := readOnce(path); err != nil {
		return 0, err
	}
	return pagecache.Share(path)
}

// cool drops the pages of path from the page cache and returns the share that
// stays. More than coldShare is an error.
func cool(path string) (share float64, err error) {
	for range 20 {
		if err := pagecache.Drop(path); err != nil {
			return 0, err
		}
		if share, err = pagecache.Share(path); err != nil || share <= coldShare {
			return share, err
		}
	}
	return share, fmt.Errorf("%.1f%% of %s stay in the page cache", 100*share, path)
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
