//go:build !linux

package boltfile

import (
	"context"
	"os"
)

// ReadAhead does nothing here: the walk reads in key order.
func ReadAhead(context.Context, *os.File, int64) (stop func()) { return func() {} }
