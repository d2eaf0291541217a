package snapshot

import "etcd.example/snapshot/internal/durable"

// WithFS makes Save and Restore work on fsys, except for what bbolt writes.
func WithFS(fsys durable.FS) Option {
	return func(m *V3Manager) { m.fs = fsys }
}
