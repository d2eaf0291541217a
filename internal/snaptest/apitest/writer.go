package apitest

import "io"

// WriterFunc is a writer that is a function.
type WriterFunc func(p []byte) (int, error)

func (f WriterFunc) Write(p []byte) (int, error) { return f(p) }

// FailAt fails the nth write, counting from 1.
func FailAt(nth int, fail func(p []byte) (int, error)) io.Writer {
	return WriterFunc(func(p []byte) (int, error) {
		if nth--; nth == 0 {
			return fail(p)
		}
		return len(p), nil
	})
}
