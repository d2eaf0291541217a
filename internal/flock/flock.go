// Package flock takes locks with flock(2), which end with the process that holds
// them. bbolt takes the same locks.
package flock

import "errors"

// ErrHeld: another lock on the file excludes this one.
var ErrHeld = errors.New("locked")
