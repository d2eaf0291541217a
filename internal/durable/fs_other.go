//go:build !linux && !darwin && !windows

package durable

import "errors"

func renameNoReplace(_, _ string) error { return errors.ErrUnsupported }

func freeSpace(string) (int64, error) { return 0, errors.ErrUnsupported }
