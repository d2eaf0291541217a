package durable

import (
	"errors"
	"fmt"
	"io/fs"
)

// retryError says that what was just found is not so any more, as after a
// concurrent call: start again. Its text is what was seen, and no guess at who
// did it.
type retryError struct{ seen error }

func (e *retryError) Error() string { return e.seen.Error() }

func (e *retryError) Unwrap() error { return e.seen }

// giveUp is the error after maxAttempts of them.
func (e *retryError) giveUp() error {
	return fmt.Errorf("%w (tried %d times)", e.seen, maxAttempts)
}

func isRetry(err error) bool {
	var r *retryError
	return errors.As(err, &r)
}

// retryIfGone makes a retryError of an error that says that something is not
// there any more.
func retryIfGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &retryError{err}
	}
	return err
}
