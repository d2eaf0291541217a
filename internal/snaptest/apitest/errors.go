package apitest

import "errors"

var (
	// ErrFull is what a writer or a disk of a test fails with.
	ErrFull = errors.New("the tape is full")
	// ErrCaller is the caller's reason to cancel, or to refuse a connection.
	ErrCaller = errors.New("no more backups today")
)
