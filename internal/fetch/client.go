package fetch

import (
	"context"
	"errors"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// Defaults of the connection, unless the caller's Config sets something else.
const (
	// windowSize is how many bytes the server may send before they are read.
	// gRPC grows its own windows to the same size, so no link becomes slower.
	windowSize = 16 << 20
	// readBuffer is how many bytes are read from the socket at a time.
	readBuffer = 256 << 10
	// maxMessage is how many bytes a message may have. Servers send 32 KiB. The
	// limit keeps a server from filling the memory.
	maxMessage = 64 << 20
	// attemptTimeout is how long one attempt to connect may take, as in gRPC.
	attemptTimeout = 20 * time.Second
	// attempts is how many attempts fit into the connect timeout, so that one
	// that hangs is repeated.
	attempts = 3
)

// connectBackoff is the wait between attempts to connect. gRPC's own grows from a
// second to two minutes, which is too slow to notice a server that comes back.
var connectBackoff = backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}

// newClient returns a client for one stream. The client, and a login that waits,
// end with the context of watch.
func newClient(watch *watchdog, cfg clientv3.Config, lg *zap.Logger) (*clientv3.Client, error) {
	if cfg.Context == nil {
		cfg.Context = context.Background()
	}
	base, cancel := context.WithCancelCause(cfg.Context)
	context.AfterFunc(watch.ctx, func() { cancel(context.Cause(watch.ctx)) })

	cfg.Context = base
	cfg.Logger = lg
	cfg.AutoSyncInterval = 0
	if cfg.MaxCallRecvMsgSize == 0 {
		cfg.MaxCallRecvMsgSize = max(maxMessage, cfg.MaxCallSendMsgSize)
	}
	cfg.DialOptions = slices.Concat([]grpc.DialOption{ // the last one wins
		grpc.WithInitialWindowSize(windowSize),
		grpc.WithInitialConnWindowSize(windowSize),
		grpc.WithReadBufferSize(readBuffer),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: connectBackoff, MinConnectTimeout: watch.attemptTime()}),
	}, watch.dialOptions(cfg), cfg.DialOptions)
	client, err := clientv3.New(cfg)
	if errors.Is(err, context.DeadlineExceeded) && base.Err() == nil { // the login timed out
		err = watch.timedOut(cfg.DialTimeout, err)
	}
	return client, err
}

// openSnapshot starts the stream as etcd's client does: with its message limits,
// its login, and its retries until the first message arrives. The client passes
// these call options only to a MaintenanceClient, so streamTap is one. A change that
// is not nil changes them.
func openSnapshot(ctx context.Context, client *clientv3.Client, change func([]grpc.CallOption) []grpc.CallOption) (grpc.ClientStream, error) {
	tap := streamTap{change: change, MaintenanceClient: clientv3.RetryMaintenanceClient(client, client.ActiveConnection())}
	_, _ = clientv3.NewMaintenanceFromMaintenanceClient(&tap, client).SnapshotWithVersion(ctx)
	if tap.stream == nil && tap.err == nil {
		return nil, errors.New("etcd's client opened no stream")
	}
	return tap.stream, tap.err
}

// streamTap keeps the stream, which etcd's client would copy through a pipe.
type streamTap struct {
	pb.MaintenanceClient
	change func([]grpc.CallOption) []grpc.CallOption
	stream grpc.ClientStream
	err    error
}

var errTapped = errors.New("the stream is read directly")

func (t *streamTap) Snapshot(ctx context.Context, req *pb.SnapshotRequest, opts ...grpc.CallOption) (pb.Maintenance_SnapshotClient, error) {
	opts = slices.Clip(opts)
	if t.change != nil {
		opts = t.change(opts)
	}
	opts = append(opts, grpc.ForceCodecV2(newSnapshotCodec()))
	t.stream, t.err = t.MaintenanceClient.Snapshot(ctx, req, opts...)
	return nil, errTapped
}
