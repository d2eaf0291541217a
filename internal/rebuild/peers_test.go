package rebuild_test

import (
	"context"
	"encoding/binary"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/client/pkg/v3/types"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/rebuild"
)

// nameServer answers on loopback for the names it knows, and says that it
// was asked. It is silent when asked for a name that begins with "silent".
type nameServer struct {
	hosts map[string][4]byte
	asked chan struct{} // a question came, since the last receive
}

// nameServerAddr is where the resolver of this process asks, if it is set.
var nameServerAddr atomic.Pointer[string]

// deafNameServer has the resolver of this process ask one that takes no question.
var deafNameServer atomic.Bool

func init() {
	net.DefaultResolver = &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if deafNameServer.Load() {
				conn, _ := net.Pipe()
				return conn, nil
			}
			var d net.Dialer
			if ours := nameServerAddr.Load(); ours != nil {
				return d.DialContext(ctx, "udp", *ours)
			}
			return d.DialContext(ctx, network, addr)
		},
	}
}

// startNameServer makes a nameServer that of this process until the test ends.
func startNameServer(t *testing.T, hosts map[string][4]byte) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &nameServer{hosts: hosts, asked: make(chan struct{}, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.serve(conn)
	}()
	addr := conn.LocalAddr().String()
	nameServerAddr.Store(&addr)
	t.Cleanup(func() {
		nameServerAddr.Store(nil)
		require.NoError(t, conn.Close())
		<-done
	})
	return s
}

func (s *nameServer) serve(conn net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, client, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		select {
		case s.asked <- struct{}{}:
		default:
		}
		if reply := s.answer(buf[:n]); reply != nil {
			_, _ = conn.WriteTo(reply, client) // lost datagrams are asked for again
		}
	}
}

func (s *nameServer) answer(query []byte) []byte {
	const typeA, noSuchName = 1, 3
	var labels []string
	end := 12
	for query[end] != 0 {
		next := end + 1 + int(query[end])
		labels = append(labels, string(query[end+1:next]))
		end = next
	}
	end += 5 // root label, type, class
	name := strings.Join(labels, ".")
	if strings.HasPrefix(name, "silent") {
		return nil
	}
	ip, known := s.hosts[name]
	reply := append([]byte{}, query[:end]...)
	clear(reply[2:12])
	reply[2], reply[3] = 0x81, 0x80 // a response, with recursion
	reply[5] = 1                    // one question
	if !known {
		reply[3] |= noSuchName
		return reply
	}
	if binary.BigEndian.Uint16(query[end-4:]) == typeA {
		reply[7] = 1 // one answer: pointer to the name, type A, class IN, TTL 60 s, 4 bytes
		reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4)
		reply = append(reply, ip[:]...)
	}
	return reply
}

// peerConfig is the configuration of a one-member cluster with these URLs.
func peerConfig(t *testing.T, inCluster, advertised []string) rebuild.Config {
	cfg := planConfig(t.TempDir())
	cfg.InitialCluster = "m1=" + strings.Join(inCluster, ",m1=")
	cfg.PeerURLs = advertised
	return cfg
}

func TestResolveEqualPeerURLs(t *testing.T) {
	for _, tt := range []struct {
		title                 string
		inCluster, advertised []string
		lookups               bool
	}{
		{"same text", []string{"http://a.test:1"}, []string{"http://a.test:1"}, false},
		{"unknown names", []string{"http://x.test:1", "https://silent.test:2"}, []string{"http://x.test:1", "https://silent.test:2"}, false},
		{"another order", []string{"http://a.test:1", "http://b.test:1"}, []string{"http://b.test:1", "http://a.test:1"}, false},
		{"spaces", []string{"http://a.test:1"}, []string{" http://a.test:1 "}, false},
		{"name and address", []string{"http://a.test:1"}, []string{"http://10.9.0.1:1"}, true},
		{"two names of one host", []string{"http://a.test:1"}, []string{"http://alias.test:1"}, true},
		{"names in another order", []string{"http://a.test:1", "http://b.test:1"}, []string{"http://10.9.0.2:1", "http://10.9.0.1:1"}, true},
	} {
		t.Run(tt.title, func(t *testing.T) {
			ns := startNameServer(t, map[string][4]byte{
				"a.test": {10, 9, 0, 1}, "alias.test": {10, 9, 0, 1}, "b.test": {10, 9, 0, 2},
			})
			_, err := rebuild.Resolve(t.Context(), peerConfig(t, tt.inCluster, tt.advertised), false)
			require.NoError(t, err)
			require.Equal(t, tt.lookups, len(ns.asked) > 0)
		})
	}
}

func TestResolveOtherPeerURLs(t *testing.T) {
	startNameServer(t, map[string][4]byte{"a.test": {10, 9, 0, 1}})
	_, err := rebuild.Resolve(t.Context(), peerConfig(t, []string{"http://a.test:1"}, []string{"http://10.9.0.2:1"}), false)
	require.ErrorIs(t, err, snapshot.ErrConfig)
	require.ErrorContains(t, err, `PeerURLs ["http://10.9.0.2:1"] are not those of InitialCluster for "m1", ["http://a.test:1"]: resolved urls:`)
}

// A name that cannot be looked up ends in an error, after a bounded time.
func TestResolvePeerURLTimeout(t *testing.T) {
	startNameServer(t, nil)
	for _, host := range []string{"unknown.test", "silent.test"} {
		t.Run(host, func(t *testing.T) {
			cfg := peerConfig(t, []string{"http://10.9.0.1:1"}, []string{"http://" + host + ":1"})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err := rebuild.CheckPeerURLs(ctx, cfg, clusterURLs, 50*time.Millisecond)
			require.ErrorIs(t, err, snapshot.ErrConfig)
			var lookup *net.DNSError
			require.ErrorAs(t, err, &lookup)
			require.Equal(t, host, lookup.Name)
		})
	}
}

var clusterURLs = types.MustNewURLs([]string{"http://10.9.0.1:1"})

// The context ends a look-up, and its error is not one of the configuration.
func TestResolvePeerURLCancelled(t *testing.T) {
	for _, host := range []string{"unknown.test", "silent.test"} {
		t.Run(host, func(t *testing.T) {
			ns := startNameServer(t, nil)
			cfg := peerConfig(t, []string{"http://10.9.0.1:1"}, []string{"http://" + host + ":1"})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			result := make(chan error, 1)
			go func() { result <- rebuild.CheckPeerURLs(ctx, cfg, clusterURLs, time.Hour) }()
			<-ns.asked
			cancel()
			select {
			case err := <-result:
				require.ErrorIs(t, err, context.Canceled)
				require.NotErrorIs(t, err, snapshot.ErrConfig)
			case <-time.After(30 * time.Second):
				require.FailNow(t, "still looking up")
			}
			p, err := rebuild.Resolve(ctx, cfg, false)
			require.ErrorIs(t, err, context.Canceled)
			require.Nil(t, p)
		})
	}
}

// A look-up that hangs ends after the time that [rebuild.Config] states.
// The clock is that of the bubble.
func TestResolvePeerURLEndsAfterTenSeconds(t *testing.T) {
	deafNameServer.Store(true)
	defer deafNameServer.Store(false)
	cfg := peerConfig(t, []string{"http://10.9.0.1:1"}, []string{"http://silent.test:1"})
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := rebuild.Resolve(t.Context(), cfg, false)
		require.ErrorIs(t, err, snapshot.ErrConfig)
		require.Equal(t, 10*time.Second, time.Since(start))
	})
}
