package snaptest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// Script handles one Snapshot call of a [FakeServer]. Its result ends the stream:
// nil like a server that has sent everything, an error with its gRPC status.
type Script func(*SnapshotCall) error

// FakeServer is a gRPC server for etcd's client, on a loopback port. Its [Script]
// sets how its snapshots go wrong.
type FakeServer struct {
	pb.UnimplementedMaintenanceServer
	pb.UnimplementedClusterServer
	pb.UnimplementedAuthServer

	script   Script
	members  []string
	listener *recordingListener

	mu       sync.Mutex
	hang     bool // logins get no response
	hashKV   func(context.Context, *pb.HashKVRequest) (*pb.HashKVResponse, error)
	tokens   []string
	released chan struct{} // one value for each call that the client released
}

// Serve starts a server that runs script for each Snapshot call, and stops it
// when the test ends. It also accepts every login, each time with a new token, and
// returns a member for each of memberURLs from MemberList.
func Serve(tb testing.TB, script Script, memberURLs ...string) *FakeServer {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := &FakeServer{
		script:   script,
		members:  memberURLs,
		listener: &recordingListener{Listener: l, conns: make(map[string]*recordingConn)},
		released: make(chan struct{}, 1024),
	}
	g := grpc.NewServer(grpc.MaxSendMsgSize(1 << 30))
	pb.RegisterMaintenanceServer(g, s)
	pb.RegisterClusterServer(g, s)
	pb.RegisterAuthServer(g, s)
	done := make(chan error, 1)
	go func() { done <- g.Serve(s.listener) }()
	tb.Cleanup(func() {
		g.Stop()
		// Serve also returns an error if the server is stopped before it starts.
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			tb.Errorf("fake server: %v", err)
		}
	})
	return s
}

// Endpoint is the client URL.
func (s *FakeServer) Endpoint() string { return "http://" + s.listener.Addr().String() }

// ClientConfig reaches the server.
func (s *FakeServer) ClientConfig() clientv3.Config {
	return clientv3.Config{Endpoints: []string{s.Endpoint()}, Logger: zap.NewNop()}
}

// Tokens lists the login token of each Snapshot call so far, empty for a call
// without one.
func (s *FakeServer) Tokens() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.tokens...)
}

// WaitReleased waits until the client has released a call whose script was still
// running: the context of its stream ended. A real server then closes its read
// transaction.
func (s *FakeServer) WaitReleased(tb testing.TB) {
	tb.Helper()
	select {
	case <-s.released:
	case <-time.After(leakPatience):
		tb.Error("the client did not release the stream")
	}
}

// Snapshot implements the Maintenance service.
func (s *FakeServer) Snapshot(_ *pb.SnapshotRequest, stream pb.Maintenance_SnapshotServer) error {
	c := &SnapshotCall{server: s, stream: stream, Chunk: 32 << 10, Version: "3.7.0"}
	md, _ := metadata.FromIncomingContext(stream.Context())
	token := ""
	if t := md.Get("token"); len(t) > 0 {
		token = t[0]
	}
	s.mu.Lock()
	s.tokens = append(s.tokens, token)
	c.Number = len(s.tokens)
	s.mu.Unlock()
	return s.script(c)
}

// MemberList implements the Cluster service.
func (s *FakeServer) MemberList(context.Context, *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	resp := &pb.MemberListResponse{Header: &pb.ResponseHeader{}}
	for i, u := range s.members {
		resp.Members = append(resp.Members, &pb.Member{ID: uint64(i) + 1, Name: fmt.Sprintf("m%d", i), ClientURLs: []string{u}})
	}
	return resp, nil
}

// HangLogins makes logins hang until the client releases them.
func (s *FakeServer) HangLogins() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hang = true
}

// Authenticate implements the Auth service.
func (s *FakeServer) Authenticate(ctx context.Context, _ *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	s.mu.Lock()
	hang := s.hang
	s.mu.Unlock()
	if hang {
		<-ctx.Done()
		s.released <- struct{}{}
		return nil, ctx.Err()
	}
	return &pb.AuthenticateResponse{Header: &pb.ResponseHeader{}, Token: fmt.Sprintf("%016x", rand.Uint64())}, nil
}

// SnapshotCall is one Snapshot call of a client.
type SnapshotCall struct {
	// Number counts the calls to the server, from 1.
	Number int
	// Chunk is how many bytes of the database SendDB puts into a message.
	Chunk int
	// Version is the storage version in each message.
	Version string

	server *FakeServer
	stream pb.Maintenance_SnapshotServer
}

// Context ends when the client releases the stream.
func (c *SnapshotCall) Context() context.Context { return c.stream.Context() }

// Send sends one message.
func (c *SnapshotCall) Send(blob []byte, remaining int64) error {
	return c.stream.Send(&pb.SnapshotResponse{Blob: blob, RemainingBytes: uint64(remaining), Version: c.Version})
}

// SendRaw sends wire as a message, well-formed or not.
func (c *SnapshotCall) SendRaw(wire []byte) error {
	msg := new(pb.SnapshotResponse)
	msg.ProtoReflect().SetUnknown(wire) // marshalled unchanged
	return c.stream.Send(msg)
}

// SendDB sends db as a real server does, without the trailer.
func (c *SnapshotCall) SendDB(db []byte) error { return c.SendPart(db, len(db), 0) }

// SendPart sends part in chunks. Each states how many of total bytes remain, plus
// lie.
func (c *SnapshotCall) SendPart(part []byte, total int, lie int64) error {
	for sent := 0; sent < len(part); {
		n := min(c.Chunk, len(part)-sent)
		sent += n
		if err := c.Send(part[sent-n:sent], int64(total-sent)+lie); err != nil {
			return err
		}
	}
	return nil
}

// SendSnapshot sends db and its trailer: nothing goes wrong.
func (c *SnapshotCall) SendSnapshot(db []byte) error {
	if err := c.SendDB(db); err != nil {
		return err
	}
	sum := sha256.Sum256(db)
	return c.Send(sum[:], 0)
}

// Stall sends nothing until the client releases the stream.
func (c *SnapshotCall) Stall() error {
	<-c.Context().Done()
	return c.letGo()
}

// Flood sends messages without bytes until the client releases the stream.
func (c *SnapshotCall) Flood(remaining int64) error {
	for c.Send(nil, remaining) == nil {
	}
	<-c.Context().Done()
	return c.letGo()
}

func (c *SnapshotCall) letGo() error {
	c.server.released <- struct{}{}
	return c.Context().Err()
}

// Reset breaks the TCP connection of the client, without an HTTP/2 frame. Data sent
// before may be lost.
func (c *SnapshotCall) Reset() error {
	p, ok := peer.FromContext(c.Context())
	if !ok {
		return fmt.Errorf("no peer")
	}
	if err := c.server.listener.reset(p.Addr.String()); err != nil {
		return err
	}
	<-c.Context().Done()
	return nil
}

// Opaque returns size bytes that do not look like a database, the same each time.
func Opaque(size int) []byte {
	b := make([]byte, 0, size+8)
	r := rand.New(rand.NewPCG(1, uint64(size)))
	for len(b) < size {
		b = binary.LittleEndian.AppendUint64(b, r.Uint64())
	}
	return b[:size]
}

// SilentEndpoint returns a URL that accepts connections and never sends anything.
func SilentEndpoint(tb testing.TB) string {
	tb.Helper()
	var conns []net.Conn
	tb.Cleanup(func() { // after the last was accepted
		for _, c := range conns {
			_ = c.Close()
		}
	})
	return Accept(tb, func(c net.Conn) { conns = append(conns, c) })
}

// Accept returns a URL. It passes each connection to serve, on one goroutine. The
// test ends when serve has returned.
func Accept(tb testing.TB, serve func(net.Conn)) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(c)
		}
	}()
	tb.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return "http://" + l.Addr().String()
}

// Forward copies src to dst through memory. Between two connections io.Copy
// splices, through a pipe that Go keeps open until a garbage collection: to a
// test that counts open files, a leak.
func Forward(dst io.Writer, src io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{dst}, struct{ io.Reader }{src})
}

// RefusingEndpoint returns a URL that refuses connections.
func RefusingEndpoint(tb testing.TB) string {
	tb.Helper()
	return FreePeerURLs(tb, 1)[0]
}
