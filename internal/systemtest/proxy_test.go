package systemtest_test

// Save goes through the proxy that the environment names. In every run.

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/trailer"
)

// connectProxy is an HTTP proxy that leads to target, whatever was asked for. It
// returns its URL and the hosts that it was asked for.
func connectProxy(t *testing.T, target string) (string, <-chan string) {
	asked := make(chan string, 16)
	serve := func(c net.Conn) {
		defer func() { _ = c.Close() }()
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil || req.Method != http.MethodConnect {
			return
		}
		asked <- req.Host
		to, err := net.Dial("tcp", target)
		if err != nil {
			return
		}
		defer func() { _ = to.Close() }()
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			return
		}
		go func() {
			_, _ = snaptest.Forward(to, r)
			_ = to.Close()
		}()
		_, _ = snaptest.Forward(c, to)
	}
	return snaptest.Accept(t, func(c net.Conn) { go serve(c) }), asked
}

// A proxy that the environment names leads to the server, as with etcd's
// client. Only a new process looks at its environment.
func TestSaveThroughProxy(t *testing.T) {
	db := snaptest.Opaque(8192)
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(db) })
	proxy, asked := connectProxy(t, strings.TrimPrefix(s.Endpoint(), "http://"))
	for _, endpoint := range []string{"http://etcd.invalid:2379", "etcd.invalid:2379"} {
		op := saves(clientOf(endpoint))[0]
		root := op.root(t)
		a := runChild(t, job{Op: op.name, Root: root, Endpoint: endpoint}, "HTTPS_PROXY="+proxy, "NO_PROXY=")
		require.Empty(t, a.Err)
		require.Equal(t, "etcd.invalid:2379", <-asked)
		got, err := os.ReadFile(filepath.Join(root, "dir", "db"))
		require.NoError(t, err)
		require.Len(t, got, len(db)+trailer.Size)
	}
}
