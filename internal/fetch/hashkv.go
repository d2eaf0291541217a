package fetch

import (
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// Hash is what a member answers to HashKV.
type Hash struct {
	Hash            uint32 // CRC-32C of the key space
	Revision        int64  // the hash is of the key space as of this revision
	CompactRevision int64  // the hash leaves out what a compaction at this revision removes
	ClusterID       uint64
	MemberID        uint64
	CurrentRevision int64 // latest revision of the member when it answered
}

// HashKV asks the member at endpoint for the hash of its key space as of revision,
// 0 for the latest. It asks no other member, whatever cfg.Endpoints holds, and does
// not change cfg. It is safe for concurrent use.
//
// The connection is that of ToFile: the login, the TLS, [fault.ErrUnreachable] after
// the connect timeout or a refusal by TLS, the end of ctx. An empty endpoint is a
// [fault.ErrEndpoints]. The member reads the records of its whole key space before it
// sends the first byte of the answer, which takes seconds for each GB. It is
// [fault.ErrStalled] if the answer takes longer than the stall timeout, so that must
// be longer than the member needs.
//
// A revision that the member has compacted is a [fault.ErrCompacted] and an
// rpctypes.ErrCompacted. One that it has not reached is a [fault.ErrFuture] and an
// rpctypes.ErrFutureRev. Other errors of the server are those of etcd's client. On
// error the Hash is zero.
func (f Fetch) HashKV(ctx context.Context, cfg clientv3.Config, endpoint string, revision int64) (Hash, error) {
	cfg.Endpoints = []string{endpoint}
	if err := check(ctx, cfg.Endpoints); err != nil {
		return Hash{}, err
	}
	watch := newWatchdog(ctx, endpoint, f.ConnectTimeout, f.StallTimeout)
	defer watch.end()
	client, err := newClient(watch, cfg, f.logger(cfg))
	if err != nil {
		return Hash{}, fmt.Errorf("create client: %w", watch.explain(err))
	}
	defer func() { _ = client.Close() }() // the answer has come or does not matter

	// The client's own Maintenance would dial a second time, past the watchdog.
	tap := hashTap{MaintenanceClient: clientv3.RetryMaintenanceClient(client, client.ActiveConnection())}
	resp, err := clientv3.NewMaintenanceFromMaintenanceClient(&tap, client).HashKV(watch.ctx, endpoint, revision)
	if err != nil {
		return Hash{}, fmt.Errorf("hash of %s at revision %d: %w", endpoint, revision, watch.explain(tap.err))
	}
	header := resp.Header
	hash := Hash{
		Hash:            resp.Hash,
		Revision:        resp.HashRevision,
		CompactRevision: resp.CompactRevision,
		ClusterID:       header.GetClusterId(),
		MemberID:        header.GetMemberId(),
		CurrentRevision: header.GetRevision(),
	}
	if hash.Revision == 0 { // etcd 3.4 does not say
		hash.Revision = revision
	}
	if hash.Revision == 0 { // the latest was asked for
		hash.Revision = hash.CurrentRevision
	}
	return hash, nil
}

// hashTap keeps the error of the call, which etcd's client would replace with that
// of the context: gRPC knows why there is no connection.
type hashTap struct {
	pb.MaintenanceClient
	err error
}

func (t *hashTap) HashKV(ctx context.Context, req *pb.HashKVRequest, opts ...grpc.CallOption) (*pb.HashKVResponse, error) {
	resp, err := t.MaintenanceClient.HashKV(ctx, req, opts...)
	t.err = err
	return resp, err
}
