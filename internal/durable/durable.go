// Package durable publishes files and directories so that they are complete or
// absent, whatever fails, even if the process is killed or the power is cut.
//
// A file is staged beside its path and renamed over it: [CreateFile]. A
// directory, possibly with a second one on another file system, is staged in a
// locked sibling and renamed into place: [Open]. Both follow the same shape:
//
//	f, err := durable.CreateFile(durable.OS, path)
//	if err != nil {
//		return err
//	}
//	defer func() { err = errors.Join(err, f.Cleanup()) }()
//	... write ...
//	return f.Commit()
//
// The next call on the same path finds and removes what a killed process left.
// A lock of the operating system, which ends with the process, protects what a
// running process uses.
package durable

import (
	"fmt"

	"etcd.example/snapshot/internal/fault"
)

var (
	// ErrExists: the path at which the target is to be published exists.
	ErrExists = fault.ErrExists
	// ErrInUse: another call or process holds the lock.
	ErrInUse = fault.ErrInUse
	// ErrNested: one of the two directories of a target is, or contains, the
	// other or the directory in which that is staged. It is a [fault.ErrConfig].
	ErrNested = fmt.Errorf("%w: directories overlap", fault.ErrConfig)
)

// maxAttempts bounds every retry of a step that fails only because of a
// concurrent call.
const maxAttempts = 100
