//go:build !linux

package systemtest_test

// Only Linux is asked for the holes of a file.

import "os"

func nextData(_ *os.File, off, _ int64) (int64, error) { return off, nil }
