// Package durable publishes files and directory trees so that they are seen
// whole or not at all, whatever fails, also when the process is killed or the
// power is cut.
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
// Whatever a killed process leaves behind is found and removed by the next call
// on the same path. What a running one is using is protected by a lock of the
// operating system, which ends with the process.
package durable

import (
	"fmt"

	"etcd.example/snapshot/internal/fault"
)

var (
	// ErrExists: there is something where the target is to be published.
	ErrExists = fault.ErrExists
	// ErrInUse: another call or process holds the lock.
	ErrInUse = fault.ErrInUse
	// ErrNested: of the two directories of a target one is, or contains, the
	// other or the place where that is staged. It is a [fault.ErrConfig].
	ErrNested = fmt.Errorf("%w: directories overlap", fault.ErrConfig)
)

// maxAttempts bounds every retry of something that only loses to a concurrent
// call.
const maxAttempts = 100
