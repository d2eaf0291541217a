//go:build !linux

package boltfile

import (
	"context"
	"io"
)

// ReadAhead does nothing here: a walk reads in key order.
func ReadAhead(context.Context, io.ReaderAt, int64) (stop func()) { return func() {} }
