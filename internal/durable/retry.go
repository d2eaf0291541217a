package durable

import (
	"errors"
	"fmt"
	"io/fs"
)

// retryError reports that the state has changed since the last look, for instance
// by a concurrent call: start again. Its text is what was seen; it does not guess
// the cause.
type retryError struct{ seen error }

func (e *retryError) Error() string { return e.seen.Error() }

func (e *retryError) Unwrap() error { return e.seen }

// giveUp returns the error after maxAttempts retries.
func (e *retryError) giveUp() error {
	return fmt.Errorf("%w (tried %d times)", e.seen, maxAttempts)
}

func isRetry(err error) bool {
	var r *retryError
	return errors.As(err, &r)
}

// retryIfGone turns an error about something that no longer exists into a
// retryError.
func retryIfGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &retryError{err}
	}
	return err
}
