package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What the connection of a Save asks for unless the caller's Config asks for
// something else.
const (
	// saveWindow is how many bytes the server may send ahead of what has been
	// read. It is as much as gRPC grows its windows to by itself, so that no
	// link becomes slower than it would be without.
	saveWindow = 16 << 20
	// saveReadBuffer is how many bytes are read from the socket at a time.
	saveReadBuffer = 256 << 10
	// saveMessage is how many bytes a message may have. Servers send 32 KiB;
	// one that sends more than this must not fill the memory.
	saveMessage = 64 << 20
)

// newSaveClient returns a client for one stream. It has no life of its own: a
// login that waits ends with ctx, and the client does.
func newSaveClient(ctx context.Context, cfg clientv3.Config, lg *zap.Logger) (*clientv3.Client, error) {
	if cfg.Context == nil {
		cfg.Context = context.Background()
	}
	base, cancel := context.WithCancelCause(cfg.Context)
	context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })

	cfg.Context = base
	cfg.Logger = lg
	cfg.AutoSyncInterval = 0
	if cfg.MaxCallRecvMsgSize == 0 {
		cfg.MaxCallRecvMsgSize = max(saveMessage, cfg.MaxCallSendMsgSize)
	}
	cfg.DialOptions = append([]grpc.DialOption{ // the last one wins
		grpc.WithInitialWindowSize(saveWindow),
		grpc.WithInitialConnWindowSize(saveWindow),
		grpc.WithReadBufferSize(saveReadBuffer),
	}, cfg.DialOptions...)
	client, err := clientv3.New(cfg)
	if errors.Is(err, context.DeadlineExceeded) && base.Err() == nil { // that of the login
		err = fmt.Errorf("%w, or rather the DialTimeout of %v: %w", ErrStalled, cfg.DialTimeout, err)
	}
	return client, err
}

// openSnapshot starts the stream as etcd's client does: with its limits on
// messages, with a login and with retries until the first message has come. It
// shows those call options to nobody but a MaintenanceClient, so one listens.
func openSnapshot(ctx context.Context, client *clientv3.Client) (grpc.ClientStream, error) {
	tap := streamTap{MaintenanceClient: clientv3.RetryMaintenanceClient(client, client.ActiveConnection())}
	_, _ = clientv3.NewMaintenanceFromMaintenanceClient(&tap, client).SnapshotWithVersion(ctx)
	if tap.stream == nil && tap.err == nil {
		return nil, errors.New("etcd's client opened no stream")
	}
	return tap.stream, tap.err
}

// streamTap keeps the stream, which etcd's client would pump through a pipe.
type streamTap struct {
	pb.MaintenanceClient
	stream grpc.ClientStream
	err    error
}

var errTapped = errors.New("the stream is read directly")

func (t *streamTap) Snapshot(ctx context.Context, req *pb.SnapshotRequest, opts ...grpc.CallOption) (pb.Maintenance_SnapshotClient, error) {
	opts = append(slices.Clip(opts), grpc.ForceCodecV2(newSnapshotCodec()))
	t.stream, t.err = t.MaintenanceClient.Snapshot(ctx, req, opts...)
	return nil, errTapped
}

// stallWatch ends a context when the server is silent for too long. Its methods
// are called by one goroutine.
type stallWatch struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	timeout time.Duration
	timer   *time.Timer // nil: the server may be silent for ever
	stalled error
}

// watchStall starts to wait for bytes. end must be called.
func watchStall(ctx context.Context, timeout time.Duration) *stallWatch {
	w := &stallWatch{timeout: timeout, stalled: fmt.Errorf("%w of %v", ErrStalled, timeout)}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	if timeout > 0 {
		w.timer = time.AfterFunc(timeout, func() { w.cancel(w.stalled) })
	}
	return w
}

// pause stops the clock while it is not the server that is waited for.
func (w *stallWatch) pause() {
	if w.timer != nil {
		w.timer.Stop()
	}
}

// restart is for when bytes have come.
func (w *stallWatch) restart() {
	if w.timer != nil {
		w.timer.Reset(w.timeout)
	}
}

func (w *stallWatch) end() {
	w.pause()
	w.cancel(nil)
}

// explain says why the client or the stream failed with err: because the server
// stalled, because the caller's context ended, or because of the server.
func (w *stallWatch) explain(err error) error {
	if w.ctx.Err() == nil {
		return serverError(w.ctx, err)
	}
	cause := context.Cause(w.ctx)
	if cause != w.stalled && !errors.Is(cause, w.ctx.Err()) {
		cause = fmt.Errorf("%w: %w", w.ctx.Err(), cause)
	}
	switch detail := status.Convert(err).Message(); detail {
	case context.Canceled.Error(), context.DeadlineExceeded.Error():
		return cause
	default: // gRPC knows, for one, why there was no connection
		return fmt.Errorf("%w: %s", cause, detail)
	}
}

// serverError gives what etcd answered both of its identities: the one that
// etcd's client gives it and the gRPC status that it came as.
func serverError(ctx context.Context, err error) error {
	var named rpctypes.EtcdError
	if errors.As(rpctypes.Error(err), &named) {
		return &answer{EtcdError: named}
	}
	// The server keeps the deadline too, and its clock can be the first.
	if _, ok := ctx.Deadline(); ok && status.Code(err) == codes.DeadlineExceeded {
		return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return err
}

// answer is an error of etcd's.
type answer struct {
	rpctypes.EtcdError
}

func (a *answer) Unwrap() []error {
	return []error{a.EtcdError, status.Error(a.Code(), a.Error())}
}
