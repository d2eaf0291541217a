//go:build race

package systemtest_test

const raceDetector = true
