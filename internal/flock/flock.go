// Package flock takes the locks of flock(2), which end with the process that
// holds them. bbolt takes the same.
package flock

import "errors"

// ErrHeld: the file has a lock that excludes this one.
var ErrHeld = errors.New("locked")
