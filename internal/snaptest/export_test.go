package snaptest

import (
	"testing"
	"time"
)

// PasswordHash lets the test compare it with Password.
const PasswordHash = passwordHash

// SetLeakPatience shortens the wait for the length of a test.
func SetLeakPatience(t *testing.T, d time.Duration) {
	old := leakPatience
	leakPatience = d
	t.Cleanup(func() { leakPatience = old })
}
