// Package short is how tests obey go test -short.
package short

import "testing"

// Skip skips a test with -short. The reason completes "it …".
func Skip(tb testing.TB, it string) {
	tb.Helper()
	if testing.Short() {
		tb.Skipf("not run with -short: it %s", it)
	}
}

// Or is n without -short, and fewer with it.
func Or(n, fewer int) int {
	if testing.Short() {
		return min(n, fewer)
	}
	return n
}

// Step is the step of a sweep without -short, and a larger one with it.
func Step(n, larger int) int {
	if testing.Short() {
		return max(n, larger)
	}
	return n
}
