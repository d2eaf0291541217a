package fetch

import (
	"context"
	"fmt"
	"math"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
)

// source opens the snapshot stream of one member.
type source struct {
	endpoint string
	logger   *zap.Logger
	// open opens the stream, which ends with the context of watch. release is not
	// nil, also on error, and frees what open made.
	open func(watch *watchdog) (stream grpc.ClientStream, release func(), err error)
}

// ownClient opens the stream with a client made for it.
func (f Fetch) ownClient(cfg clientv3.Config) source {
	lg := f.logger(cfg)
	return source{endpoint: cfg.Endpoints[0], logger: lg, open: func(watch *watchdog) (grpc.ClientStream, func(), error) {
		client, err := newClient(watch, cfg, lg)
		if err != nil {
			return nil, func() {}, fmt.Errorf("create client: %w", watch.explain(err))
		}
		release := func() { _ = client.Close() } // the stream has ended or does not matter
		stream, err := openSnapshot(watch.ctx, client, nil)
		if err != nil {
			return nil, release, fmt.Errorf("open stream: %w", watch.explain(err))
		}
		return stream, release, nil
	}}
}

// callersClient opens the stream with the client of the caller, on the connection
// that it has.
func (f Fetch) callersClient(client *clientv3.Client, endpoint string) source {
	return source{endpoint: endpoint, logger: f.Logger, open: func(watch *watchdog) (grpc.ClientStream, func(), error) {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			watch.follow(client.ActiveConnection())
		}()
		release := func() {
			watch.end()
			<-ended
		}
		stream, err := openSnapshot(watch.ctx, client, limitMessages)
		if err != nil {
			return nil, release, fmt.Errorf("open stream: %w", watch.explain(err))
		}
		watch.established()
		return stream, release, nil
	}}
}

// connection is what follow needs of a [grpc.ClientConn].
type connection interface {
	GetState() connectivity.State
	WaitForStateChange(ctx context.Context, from connectivity.State) bool
}

// follow reports when the connection is made and lost, until the context ends or
// the connection is closed.
func (w *watchdog) follow(conn connection) {
	for {
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			w.established()
		case connectivity.Shutdown: // which ends the stream
			return
		default:
			w.lost()
		}
		if !conn.WaitForStateChange(w.ctx, state) {
			return
		}
	}
}

// limitMessages limits the size of a message, as newClient does, unless the client
// has another limit than etcd's default, which is none.
func limitMessages(opts []grpc.CallOption) []grpc.CallOption {
	receive, send := 0, 0
	for _, opt := range opts {
		switch opt := opt.(type) {
		case grpc.MaxRecvMsgSizeCallOption:
			receive = opt.MaxRecvMsgSize
		case grpc.MaxSendMsgSizeCallOption:
			send = opt.MaxSendMsgSize
		}
	}
	if receive == math.MaxInt32 {
		opts = append(opts, grpc.MaxCallRecvMsgSize(max(maxMessage, send)))
	}
	return opts
}
