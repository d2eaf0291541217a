//go:build race

package systemtest_test

// Tells the soak that memory has shadow pages.

const raceDetector = true
