package query

import (
	"bytes"
	"context"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// RangeStream implements [pb.KVClient].
func (c Client) RangeStream(ctx context.Context, req *pb.RangeRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[pb.RangeStreamResponse], error) {
	own := proto.Clone(req).(*pb.RangeRequest) // it will be changed
	return &rangeStream{ctx: ctx, db: c.DB, req: own, limit: req.GetLimit()}, nil
}

// streamChunk is how many keys a message of a stream has at most.
const streamChunk = 256

// rangeStream is the stream of a RangeStream.
type rangeStream struct {
	grpc.ClientStream
	ctx   context.Context
	db    *Database
	req   *pb.RangeRequest
	limit int64 // of all messages, 0: none
	sent  int64
	done  bool
}

// Recv implements [grpc.ServerStreamingClient].
func (s *rangeStream) Recv() (*pb.RangeStreamResponse, error) {
	if s.done {
		return nil, io.EOF
	}
	s.done = true
	if err := checkRange(s.req); err != nil {
		return nil, err
	}
	switch {
	case sorts(s.req) && s.req.SortOrder != pb.RangeRequest_NONE:
		return nil, status.Error(codes.Unimplemented, "RangeStream does not support custom sort orders")
	case filters(s.req):
		return nil, status.Error(codes.Unimplemented, "RangeStream does not support revision filters")
	}
	s.req.SortTarget = pb.RangeRequest_KEY
	if err := s.db.enter(s.ctx); err != nil {
		return nil, err
	}
	defer s.db.leave()
	return s.next()
}

// next answers with the next keys. Header, More and Count are in the last message.
func (s *rangeStream) next() (*pb.RangeStreamResponse, error) {
	s.req.Limit = streamChunk
	if s.limit > 0 {
		s.req.Limit = min(streamChunk, s.limit-s.sent)
	}
	resp, err := s.db.rangeKeys(s.ctx, s.req)
	if err != nil {
		return nil, err
	}
	out := &pb.RangeResponse{Kvs: resp.Kvs}
	s.sent += int64(len(resp.Kvs))
	if s.done = !resp.More || s.sent == s.limit; s.done {
		out.Header, out.More, out.Count = resp.Header, resp.More, s.sent
		if s.req.CountOnly {
			out.Count = resp.Count
		} else if resp.More {
			out.Count += resp.Count - int64(len(resp.Kvs))
		}
	} else {
		s.req.Key = append(bytes.Clone(resp.Kvs[len(resp.Kvs)-1].Key), 0)
	}
	return &pb.RangeStreamResponse{RangeResponse: out}, nil
}
