package snapshot

import (
	"time"

	"go.uber.org/zap"

	"etcd.example/snapshot/internal/meter"
)

// DefaultConnectTimeout is how long Save waits for a connection to the server
// unless [WithConnectTimeout] says otherwise.
const DefaultConnectTimeout = 10 * time.Second

// DefaultStallTimeout is how long Save waits for the next snapshot byte unless
// [WithStallTimeout] says otherwise.
const DefaultStallTimeout = time.Minute

// V3Manager is the Manager for v3 snapshots. It has more methods than the
// documented interface. The zero value works like the result of [New] without
// options. A V3Manager is immutable and safe for concurrent use: any number of
// calls may run at once.
type V3Manager struct {
	lg             *zap.Logger
	progress       func(Progress)
	connectTimeout time.Duration // 0 is the default, less is none
	stallTimeout   time.Duration // 0 is the default, less is none
}

var _ Manager = (*V3Manager)(nil)

// Option changes how a [V3Manager] works. A nil Option changes nothing.
type Option func(*V3Manager)

// New returns a V3Manager. Without options it does not log, reports no progress,
// and gives up on a server after [DefaultConnectTimeout] without a connection or
// [DefaultStallTimeout] without a byte.
func New(opts ...Option) *V3Manager {
	m := new(V3Manager)
	for _, opt := range opts {
		if opt != nil {
			opt(m)
		}
	}
	return m.withDefaults()
}

// withDefaults fills in what no option has set. Each operation begins with it,
// for managers that New has not made.
func (m *V3Manager) withDefaults() *V3Manager {
	set := *m
	if set.lg == nil {
		set.lg = zap.NewNop()
	}
	if set.connectTimeout == 0 {
		set.connectTimeout = DefaultConnectTimeout
	}
	if set.stallTimeout == 0 {
		set.stallTimeout = DefaultStallTimeout
	}
	return &set
}

// WithLogger logs to lg. A nil lg turns logging off.
func WithLogger(lg *zap.Logger) Option {
	return func(m *V3Manager) { m.lg = lg }
}

// WithProgress calls report as an operation advances, on the goroutine that called
// the operation. When several operations of the manager run at once, report is
// called concurrently. It must return quickly, because the operation waits for it.
// A nil report turns progress off.
func WithProgress(report func(Progress)) Option {
	return func(m *V3Manager) { m.progress = report }
}

// WithConnectTimeout ends a Save with [ErrUnreachable] when it has not connected to
// the server within d. Until then it tries again, so it uses a server that comes up
// in time. Zero or less turns the timeout off: Save then tries until the context
// ends. To connect means a TCP connection, a TLS handshake if the endpoint or the
// TLS of the Config requires one, and an answer in HTTP/2.
func WithConnectTimeout(d time.Duration) Option {
	return func(m *V3Manager) { m.connectTimeout = orNone(d) }
}

// WithStallTimeout ends a Save with [ErrStalled] when the server has sent no
// snapshot byte for d. The time starts when the connection is there. Messages
// without bytes do not count. Zero or less turns the timeout off: Save then waits
// for a silent server until the context ends.
func WithStallTimeout(d time.Duration) Option {
	return func(m *V3Manager) { m.stallTimeout = orNone(d) }
}

// orNone keeps what turns a timeout off apart from one that was never set.
func orNone(d time.Duration) time.Duration {
	if d <= 0 {
		return -1
	}
	return d
}

// report passes the progress of an operation on, if anyone wants to hear it.
func (m *V3Manager) report(op string) meter.Report {
	if m.progress == nil {
		return nil
	}
	return func(phase meter.Phase, done, total int64) {
		m.progress(Progress{Op: op, Phase: Phase(phase), Done: done, Total: total})
	}
}

// Phase names a part of an operation.
type Phase string

// The phases of the operations, in order.
const (
	PhaseDownload Phase = "download" // Save, SaveFile, SaveFrom, SaveTo: bytes received
	PhaseRead     Phase = "read"     // Status, Verify, VerifyFrom: bytes read
	PhaseCopy     Phase = "copy"     // Restore, RestoreFrom: bytes staged
	PhaseCheck    Phase = "check"    // Restore, RestoreFrom: bytes of copied pages checked
	PhasePublish  Phase = "publish"  // Restore, RestoreFrom: 0 of 1 before, 1 of 1 after
)

// Progress is one report of a running operation.
type Progress struct {
	Op    string // "save", "status", "verify" or "restore"
	Phase Phase
	Done  int64 // bytes of this phase so far; of PhasePublish 0 or 1
	Total int64 // bytes of this phase, 0 if unknown (the copy of RestoreFrom, VerifyFrom); of PhasePublish 1
}
