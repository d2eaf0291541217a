package fetch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"etcd.example/snapshot/internal/fault"
)

// watchdog ends the context of a Save when there is no connection within the
// connect timeout, and after that when the server sends nothing for the stall
// timeout. It is safe for concurrent use: gRPC connects on a goroutine of its own.
type watchdog struct {
	ctx      context.Context
	cancel   context.CancelCauseFunc
	endpoint string
	connect  time.Duration // connect timeout; 0 or less: none
	stall    time.Duration // stall timeout; 0 or less: none

	mu         sync.Mutex
	connecting *time.Timer // nil: no connect timeout
	silence    *time.Timer // nil: no stall timeout, or not connected
	connected  bool
	reached    bool  // there was a connection
	received   bool  // bytes have come
	reason     error // why there is no connection, if known
	paused     bool
	deadline   time.Time     // of the server, while not paused
	left       time.Duration // until the deadline, while paused
	verdict    error         // why the watchdog ended the context, if it was the first to
}

// newWatchdog starts to wait for a connection. end must be called.
func newWatchdog(ctx context.Context, endpoint string, connect, stall time.Duration) *watchdog {
	w := &watchdog{endpoint: endpoint, connect: connect, stall: stall}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	if connect > 0 {
		w.connecting = time.AfterFunc(connect, w.unreachable)
	}
	return w
}

// attemptTime is how long one attempt to connect may take.
func (w *watchdog) attemptTime() time.Duration {
	if w.connect <= 0 {
		return attemptTimeout
	}
	return min(attemptTimeout, max(w.connect/attempts, time.Second))
}

// giveUp ends the context, unless it has ended. mu is held.
func (w *watchdog) giveUp(verdict error) {
	if w.verdict == nil {
		w.verdict = verdict
		w.cancel(verdict)
	}
}

// unreachable is called when the time for a connection is over.
func (w *watchdog) unreachable() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.connected {
		w.giveUp(w.noConnection(fmt.Sprintf("%s, within %v", w.endpoint, w.connect)))
	}
}

// noConnection is the [fault.ErrUnreachable] with the reason. mu is held.
func (w *watchdog) noConnection(what string) error {
	if w.reason == nil { // explain adds gRPC's text
		return fmt.Errorf("%w: %s", fault.ErrUnreachable, what)
	}
	return fmt.Errorf("%w: %s: %w", fault.ErrUnreachable, what, w.reason)
}

// attempt notes how far an attempt to connect has come, or why it failed. After a
// final failure, which another attempt would repeat, the wait ends.
func (w *watchdog) attempt(reason error, final bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.connected || w.ctx.Err() != nil { // the end of the wait makes attempts fail, too
		return
	}
	w.reason = reason
	if final {
		w.giveUp(w.noConnection(w.endpoint))
	}
}

// established is called when there is a connection. It starts the stall clock,
// unless an earlier connection did.
func (w *watchdog) established() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.connected {
		return
	}
	w.connected, w.reached = true, true
	w.stopConnecting()
	if w.silence == nil {
		w.start(w.stall)
	}
}

// lost is called when a connection has ended. Until the first byte, etcd's client
// connects again, and the connect timeout starts anew.
func (w *watchdog) lost() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.connected || w.received || w.ctx.Err() != nil {
		return
	}
	w.connected, w.reason = false, errLost
	if w.connecting != nil {
		w.connecting.Reset(w.connect)
	}
}

func (w *watchdog) stopConnecting() {
	if w.connecting != nil {
		w.connecting.Stop()
	}
}

// timedOut is the error of a login that took longer than limit.
func (w *watchdog) timedOut(limit time.Duration, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.reached { // the client has closed a connection by now
		return fmt.Errorf("%w: %w", w.noConnection(fmt.Sprintf("%s, within the DialTimeout of %v", w.endpoint, limit)), err)
	}
	return fmt.Errorf("%w: the login was not answered within the DialTimeout of %v: %w", fault.ErrStalled, limit, err)
}

// pause stops the stall clock while Save does not wait for the server.
func (w *watchdog) pause() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.halt()
	w.left = time.Until(w.deadline)
}

// resume continues the stall clock where it was paused.
func (w *watchdog) resume() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.start(w.left)
}

// restart is called when bytes arrive. It starts the stall clock anew.
func (w *watchdog) restart() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.received = true
	w.halt()
	w.start(w.stall)
}

func (w *watchdog) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.halt()
	w.stopConnecting()
	w.cancel(nil)
}

// halt stops the stall clock. mu is held.
func (w *watchdog) halt() {
	w.paused = true
	if w.silence != nil {
		w.silence.Stop()
	}
}

// start lets the server be silent for d. mu is held.
func (w *watchdog) start(d time.Duration) {
	if w.stall <= 0 {
		return
	}
	w.paused, w.deadline = false, time.Now().Add(d)
	if w.silence == nil {
		w.silence = time.AfterFunc(d, w.stalled)
		return
	}
	w.silence.Reset(d)
}

// stalled is called when the stall timeout is over. It does nothing if bytes
// arrived at that very moment.
func (w *watchdog) stalled() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.paused && !time.Now().Before(w.deadline) {
		w.giveUp(fmt.Errorf("%w of %v", fault.ErrStalled, w.stall))
	}
}

// explain returns why the client or the stream failed with err: no connection, a
// stalled server, the end of the caller's context, or an error of the server.
func (w *watchdog) explain(err error) error {
	if w.ctx.Err() == nil {
		return serverError(w.ctx, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	cause := context.Cause(w.ctx)
	own := w.verdict != nil && cause == w.verdict
	if !own {
		cause = contextError(w.ctx)
	}
	if !w.connected && w.reason != nil {
		if own && !errors.Is(cause, fault.ErrStalled) {
			return cause // which has the reason
		}
		return fmt.Errorf("%w: %s: %s", cause, w.endpoint, w.reason.Error())
	}
	if detail := status.Convert(err).Message(); !strings.HasPrefix(detail, w.ctx.Err().Error()) {
		return fmt.Errorf("%w: %s", cause, detail) // gRPC knows why a connection was lost
	}
	return cause
}

// contextError returns the error of a context that has ended, with its cause if
// that is another.
func contextError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if err != nil && !errors.Is(cause, err) {
		return fmt.Errorf("%w: %w", err, cause)
	}
	return cause
}

// serverError gives an error of etcd all of its identities: that of package
// rpctypes, its gRPC status, and the sentinel of this library if there is one.
func serverError(ctx context.Context, err error) error {
	var named rpctypes.EtcdError
	if errors.As(rpctypes.Error(err), &named) {
		return &namedError{EtcdError: named}
	}
	// The server has the deadline too, and its clock may be faster.
	if _, ok := ctx.Deadline(); ok && status.Code(err) == codes.DeadlineExceeded {
		return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return err
}

// namedError is an error that etcd's client has a name for.
type namedError struct {
	rpctypes.EtcdError
}

func (e *namedError) Unwrap() []error {
	all := []error{e.EtcdError, status.Error(e.Code(), e.Error())}
	switch e.EtcdError {
	case rpctypes.ErrCompacted:
		all = append(all, fault.ErrCompacted)
	case rpctypes.ErrFutureRev:
		all = append(all, fault.ErrFuture)
	}
	return all
}
