package snapshot

import (
	"time"

	"etcd.example/snapshot/internal/durable"
)

// WithFS makes Save and Restore work on fsys, except for what bbolt writes.
func WithFS(fsys durable.FS) Option {
	return func(m *V3Manager) { m.fs = fsys }
}

// NewMeter returns what counts the bytes of a phase and what ends it.
func NewMeter(report func(Progress), total int64) (add func(int64), finish func()) {
	mt := New(WithProgress(report)).newMeter("status", PhaseRead, total)
	return mt.add, mt.finish
}

// CheckDigest is what Verify does beside the walk over the pages.
var CheckDigest = checkDigest

// Inspect is Status of any reader and, if strict, Verify without the digest.
var Inspect = inspect

// Timeouts are those that m works with; less than 0 is none.
func Timeouts(m *V3Manager) (connect, stall time.Duration) {
	m = m.withDefaults()
	return m.connectTimeout, m.stallTimeout
}
