package fetch_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/fetch"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// relay passes connections on to a server, but for the first few, which it takes
// and leaves alone.
type relay struct {
	l    net.Listener
	mu   sync.Mutex
	held []net.Conn
	done sync.WaitGroup
}

func newRelay(tb testing.TB, endpoint string, swallow int) *relay {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	r := &relay{l: l}
	r.done.Go(func() {
		for n := 0; ; n++ {
			client, err := l.Accept()
			if err != nil {
				return
			}
			r.hold(client)
			if n < swallow {
				continue
			}
			server, err := net.Dial("tcp", strings.TrimPrefix(endpoint, "http://"))
			if err != nil {
				_ = client.Close()
				continue
			}
			r.hold(server)
			pump := func(dst, src net.Conn) {
				_, _ = snaptest.Forward(dst, src)
				_ = dst.Close()
			}
			r.done.Go(func() { pump(server, client) })
			r.done.Go(func() { pump(client, server) })
		}
	})
	tb.Cleanup(func() {
		r.cut()
		r.done.Wait()
	})
	return r
}

func (r *relay) hold(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = append(r.held, c)
}

// cut ends all connections and takes no more.
func (r *relay) cut() {
	_ = r.l.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.held {
		_ = c.Close()
	}
}

func (r *relay) endpoint() string { return "http://" + r.l.Addr().String() }

// An attempt to connect that hangs is made again while there is time.
func TestSaveWhenTheFirstConnectionHangs(t *testing.T) {
	snaptest.NoLeaks(t)
	db := snaptest.Opaque(1 << 20)
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(db) })
	cfg := s.ClientConfig()
	cfg.Endpoints = []string{newRelay(t, s.Endpoint(), 1).endpoint()}
	_, err := snapshot.New(snapshot.WithConnectTimeout(6*time.Second)).SaveTo(t.Context(), cfg, io.Discard)
	require.NoError(t, err)
}

// A connection that is lost before the server has sent anything, and cannot be
// made again, makes the server unreachable, not silent.
func TestSaveWhenTheConnectionIsLost(t *testing.T) {
	snaptest.NoLeaks(t)
	reached := make(chan struct{})
	var once sync.Once
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
		once.Do(func() { close(reached) })
		<-c.Context().Done()
		return c.Context().Err()
	})
	r := newRelay(t, s.Endpoint(), 0)
	cfg := s.ClientConfig()
	cfg.Endpoints = []string{r.endpoint()}
	go func() {
		<-reached
		r.cut()
	}()
	m := snapshot.New(snapshot.WithConnectTimeout(time.Second), snapshot.WithStallTimeout(never))
	_, err := m.SaveTo(t.Context(), cfg, io.Discard)
	require.ErrorIs(t, err, snapshot.ErrUnreachable)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// A host with several addresses is reached at the one that answers, whatever the
// others do.
func TestDialFirst(t *testing.T) {
	snaptest.NoLeaks(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	const dead, refused = "127.0.0.2:1", "127.0.0.3:1"
	dialer := &net.Dialer{ControlContext: func(ctx context.Context, _, address string, _ syscall.RawConn) error {
		switch address {
		case dead:
			<-ctx.Done()
			return ctx.Err()
		case refused:
			return syscall.ECONNREFUSED
		}
		return nil
	}}
	for _, addresses := range [][]string{
		{l.Addr().String()},
		{dead, l.Addr().String()},
		{dead, refused, dead, l.Addr().String()},
		{l.Addr().String(), dead},
		{l.Addr().String(), l.Addr().String()},
	} {
		conn, err := fetch.DialFirst(t.Context(), dialer, addresses)
		require.NoError(t, err, addresses)
		require.Equal(t, l.Addr().String(), conn.RemoteAddr().String())
		require.NoError(t, conn.Close())
	}
	_, err = fetch.DialFirst(t.Context(), dialer, []string{refused, refused})
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = fetch.DialFirst(ctx, dialer, []string{dead, dead, dead})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// endlessly repeats a beginning.
type endlessly struct {
	beginning string
	read      int64
}

func (e *endlessly) Read(p []byte) (int, error) {
	n := copy(p, strings.Repeat(e.beginning, 1+len(p)/len(e.beginning)))
	e.read += int64(n)
	return n, nil
}

// A stream that is no snapshot is refused after its first block.
func TestRestoreFromRefusesEarly(t *testing.T) {
	for _, beginning := range []string{"\x1f\x8b\x08\x00gzip", "<html>", "\x00"} {
		r := &endlessly{beginning: beginning}
		err := snapshot.New().RestoreFrom(t.Context(), r, apitest.Config("", t.TempDir()+"/data"))
		require.ErrorIs(t, err, snapshot.ErrCorrupt)
		require.LessOrEqual(t, r.read, int64(2<<20))
	}
}

// errMine is what a callback of the caller says.
var errMine = errors.New("mine refuses")
