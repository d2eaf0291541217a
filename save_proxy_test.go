package snapshot_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
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
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
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
			_, _ = io.Copy(to, r)
			_ = to.Close()
		}()
		_, _ = io.Copy(c, to)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return "http://" + l.Addr().String(), asked
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
		text, err := json.Marshal(job{Op: op.name, Root: root, Endpoint: endpoint})
		require.NoError(t, err)
		exe, err := os.Executable()
		require.NoError(t, err)
		cmd := exec.CommandContext(t.Context(), exe)
		cmd.Env = append(os.Environ(), childJob+"="+string(text), "HTTPS_PROXY="+proxy, "NO_PROXY=")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		require.NoError(t, err, stderr.String())
		var a answer
		require.NoError(t, json.Unmarshal(out, &a))
		require.Empty(t, a.Err)
		require.Equal(t, "etcd.invalid:2379", <-asked)
		got, err := os.ReadFile(filepath.Join(root, "dir", "db"))
		require.NoError(t, err)
		require.Len(t, got, len(db)+trailer.Size)
	}
}
