package snaptest

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// AnswerHashKV sets the function that answers HashKV calls. Without it they are not implemented.
func (s *FakeServer) AnswerHashKV(answer func(context.Context, *pb.HashKVRequest) (*pb.HashKVResponse, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hashKV = answer
}

// HashKV implements the Maintenance service.
func (s *FakeServer) HashKV(ctx context.Context, req *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	s.mu.Lock()
	answer := s.hashKV
	s.mu.Unlock()
	if answer == nil {
		return s.UnimplementedMaintenanceServer.HashKV(ctx, req)
	}
	return answer(ctx, req)
}

// StallHashKV gives HashKV calls no answer until the client lets go of them.
func (s *FakeServer) StallHashKV() {
	s.AnswerHashKV(func(ctx context.Context, _ *pb.HashKVRequest) (*pb.HashKVResponse, error) {
		<-ctx.Done()
		s.released <- struct{}{}
		return nil, ctx.Err()
	})
}
