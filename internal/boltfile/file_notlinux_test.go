//go:build unix && !linux

package boltfile_test

import (
	"os"
	"testing"
)

func dropCache(testing.TB, *os.File) {}
