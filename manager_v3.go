package snapshot

import (
	"time"

	"go.uber.org/zap"

	"etcd.example/snapshot/internal/durable"
)

// DefaultStallTimeout is how long Save waits for the next snapshot byte unless
// [WithStallTimeout] says otherwise.
const DefaultStallTimeout = time.Minute

// V3Manager is the Manager for v3 snapshots, with what goes beyond the
// documented interface. [New] makes one; the zero value is of no use. It is
// immutable and safe for concurrent use; any number of calls may run at once.
type V3Manager struct {
	lg           *zap.Logger
	progress     func(Progress)
	stallTimeout time.Duration
	fs           durable.FS
}

var _ Manager = (*V3Manager)(nil)

// Option changes how a [V3Manager] works.
type Option func(*V3Manager)

// New returns a V3Manager. Without options it is silent, reports no progress
// and gives up on a server after [DefaultStallTimeout] without a byte.
func New(opts ...Option) *V3Manager {
	m := &V3Manager{
		lg:           zap.NewNop(),
		stallTimeout: DefaultStallTimeout,
		fs:           durable.OS,
	}
	for _, opt := range opts {
		opt(m)
	}
	return m
}

// WithLogger logs to lg. A nil lg is silent.
func WithLogger(lg *zap.Logger) Option {
	return func(m *V3Manager) {
		if lg == nil {
			lg = zap.NewNop()
		}
		m.lg = lg
	}
}

// WithProgress calls report as bytes are done, on the goroutine that called the
// operation. When several operations of the manager run at once, report is
// called concurrently. It must return quickly: the work waits for it.
func WithProgress(report func(Progress)) Option {
	return func(m *V3Manager) { m.progress = report }
}

// WithStallTimeout ends a Save with [ErrStalled] when the server has sent no
// snapshot byte for d, from the first attempt to connect on. Messages without
// bytes do not count. Zero or less turns it off: a silent server is then
// waited for until the context ends.
func WithStallTimeout(d time.Duration) Option {
	return func(m *V3Manager) { m.stallTimeout = d }
}

// Phase names a part of an operation.
type Phase string

// The phases of each operation, in the order in which they come.
const (
	PhaseDownload Phase = "download" // Save, SaveTo: bytes received
	PhaseRead     Phase = "read"     // Status, Verify: bytes read
	PhaseCopy     Phase = "copy"     // Restore, RestoreFrom: bytes staged
	PhaseCheck    Phase = "check"    // Restore, RestoreFrom: bytes of staged pages checked
	PhasePublish  Phase = "publish"  // Restore, RestoreFrom: 0 of 1 before, 1 of 1 after
)

// Progress is one report of an operation under way.
type Progress struct {
	Op    string // "save", "status", "verify" or "restore"
	Phase Phase
	Done  int64 // bytes of this phase that are done
	Total int64 // bytes of this phase, or 0 where nobody knows (RestoreFrom's copy)
}
