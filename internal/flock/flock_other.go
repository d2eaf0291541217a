//go:build !unix || solaris || aix

package flock

import (
	"errors"
	"os"
)

// TryExclusive returns [errors.ErrUnsupported].
func TryExclusive(*os.File) error { return errors.ErrUnsupported }

// TryShared returns [errors.ErrUnsupported].
func TryShared(*os.File) error { return errors.ErrUnsupported }

// Unlock does nothing.
func Unlock(*os.File) error { return nil }
