package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// countingStream is what an interceptor makes of a stream.
type countingStream struct {
	grpc.ClientStream
	received *int
	opaque   *int // messages that are no proto.Message
}

func (s countingStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err == nil {
		*s.received++
		if _, ok := m.(proto.Message); !ok {
			*s.opaque++
		}
	}
	return err
}

func TestSaveKeepsInterceptors(t *testing.T) {
	db := snaptest.Opaque(1 << 20)
	for name, with := range map[string]func(grpc.StreamClientInterceptor) grpc.DialOption{
		"chained": func(i grpc.StreamClientInterceptor) grpc.DialOption { return grpc.WithChainStreamInterceptor(i) },
		"alone":   grpc.WithStreamInterceptor, // in the place of the one with which etcd's client tries again
	} {
		t.Run(name, func(t *testing.T) {
			apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
				s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(db) })
				var received, opaque int
				var methods []string
				cfg := s.ClientConfig()
				cfg.DialOptions = []grpc.DialOption{with(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
					methods = append(methods, method)
					stream, err := streamer(ctx, desc, cc, method, opts...)
					return countingStream{stream, &received, &opaque}, err
				})}
				got, err := fetch(t.Context(), t, snapshot.New(), cfg)
				require.NoError(t, err)
				require.True(t, bytes.Equal(snaptest.WithTrailer(db), got))
				require.Equal(t, []string{"/etcdserverpb.Maintenance/Snapshot"}, methods)
				require.Equal(t, 1<<20/(32<<10)+1, received)
				require.Equal(t, received, opaque)
			})
		})
	}
}

// LogConfig would make the client log to elsewhere.
func TestSaveIgnoresLogConfig(t *testing.T) {
	apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
		log := filepath.Join(t.TempDir(), "log")
		logs := zap.NewDevelopmentConfig()
		logs.OutputPaths, logs.ErrorOutputPaths = []string{log}, []string{log}
		s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
			if c.Number == 1 {
				return unavailable // of which the client has something to say
			}
			return c.SendSnapshot(snaptest.Opaque(4096))
		})
		cfg := s.ClientConfig()
		cfg.Logger, cfg.LogConfig = nil, &logs
		_, err := fetch(t.Context(), t, snapshot.New(), cfg)
		require.NoError(t, err)
		require.NoFileExists(t, log)
	})
}

func TestSaveEndpointForms(t *testing.T) {
	plain := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(snaptest.Opaque(4096)) })
	secure := snaptest.Start(t, snaptest.WithTLS(true))
	for name, e := range map[string]struct {
		cfg    clientv3.Config
		scheme string
	}{
		"http":  {plain.ClientConfig(), "http://"},
		"https": {secure.ClientConfig(), "https://"},
	} {
		host, ok := strings.CutPrefix(e.cfg.Endpoints[0], e.scheme)
		require.True(t, ok)
		for form, endpoint := range map[string]string{" with scheme": e.scheme + host, " without scheme": host} {
			t.Run(name+form, func(t *testing.T) {
				cfg := e.cfg
				cfg.Endpoints = []string{endpoint}
				requireSaved(t, cfg)
			})
		}
	}
}

// Who may send large messages may receive such, too.
func TestSaveReceiveLimitRises(t *testing.T) {
	db := make([]byte, 65<<20)
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
		c.Chunk = len(db)
		return c.SendSnapshot(db)
	})
	cfg := s.ClientConfig()
	cfg.MaxCallSendMsgSize = 66 << 20
	saved, err := snapshot.New(snapshot.WithStallTimeout(longStall)).SaveTo(t.Context(), cfg, io.Discard)
	require.NoError(t, err)
	require.EqualValues(t, len(db)+32, saved.Size)
}

// Of two Saves to one path the last to end wins, whichever was the first to
// begin.
func TestSaveLastToEndWins(t *testing.T) {
	for name, first := range map[string]int{"begun first": 1, "begun last": 2} {
		t.Run(name, func(t *testing.T) {
			snaptest.NoLeaks(t)
			var serving [3]chan struct{} // by the number of the call
			for i := range serving {
				serving[i] = make(chan struct{})
			}
			goOn := make(chan struct{})
			s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
				close(serving[c.Number])
				if c.Number != first {
					select {
					case <-goOn:
					case <-c.Context().Done():
					}
				}
				return c.SendSnapshot(snaptest.Opaque(c.Number * 4096))
			})
			path := filepath.Join(t.TempDir(), "db")
			m := snapshot.New(snapshot.WithStallTimeout(longStall))
			var ended [3]chan error
			for i := 1; i <= 2; i++ {
				ended[i] = make(chan error, 1)
				go func() { ended[i] <- m.Save(t.Context(), s.ClientConfig(), path) }()
				<-serving[i]
			}
			require.NoError(t, <-ended[first])
			requireContent(t, path, first*4096)
			close(goOn)
			require.NoError(t, <-ended[3-first])
			requireContent(t, path, (3-first)*4096)
		})
	}
}

func requireContent(t *testing.T, path string, size int) {
	t.Helper()
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, snaptest.WithTrailer(snaptest.Opaque(size)), got)
}

var errWrite = errors.New("the writer panics")

// Whichever Write panics, the last one with the trailer included, the panic is
// the caller's and nothing is left running.
func TestSaveToPanickingWrites(t *testing.T) {
	db := snaptest.Opaque(3<<20 + 8192)
	for nth := 1; nth <= 4; nth++ {
		snaptest.NoLeaks(t)
		s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(db) })
		w := apitest.FailAt(nth, func([]byte) (int, error) { panic(errWrite) })
		require.PanicsWithValue(t, errWrite, func() { _, _ = snapshot.New().SaveTo(t.Context(), s.ClientConfig(), w) })
	}
}
