//go:build !linux

package durable

import (
	"errors"
	"os"
)

func copyRange(*os.File, int64, *os.File, int64, int64) (int64, error) {
	return 0, errors.ErrUnsupported
}

func allocate(*os.File, int64) error { return errors.ErrUnsupported }

func startWriteback(*os.File, int64, int64) error { return nil }

func awaitWriteback(*os.File, int64, int64) error { return nil }

func dropCache(*os.File, int64, int64) {}
