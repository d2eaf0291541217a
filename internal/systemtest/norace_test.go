//go:build !race

package systemtest_test

// Tells the soak that memory has no shadow pages.

const raceDetector = false
