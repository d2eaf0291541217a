package snaptest

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"testing"
)

// recordingListener records its connections, and the first bytes received on each.
type recordingListener struct {
	net.Listener

	mu    sync.Mutex
	conns map[string]*recordingConn // by the client's address
	last  *recordingConn
}

// Accept implements net.Listener.
func (l *recordingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	rc := &recordingConn{Conn: c}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c.RemoteAddr().String()] = rc
	l.last = rc
	return rc, nil
}

// reset closes a connection so that the client gets a TCP reset.
func (l *recordingListener) reset(client string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.conns[client]
	if !ok {
		return fmt.Errorf("no connection from %s", client)
	}
	if err := c.Conn.(*net.TCPConn).SetLinger(0); err != nil {
		return err
	}
	return c.Conn.Close()
}

type recordingConn struct {
	net.Conn

	mu    sync.Mutex
	hello []byte
}

const helloBytes = 256

// Read implements net.Conn.
func (c *recordingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	c.hello = append(c.hello, p[:min(n, helloBytes-len(c.hello))]...)
	c.mu.Unlock()
	return n, err
}

// HTTP/2, RFC 9113.
const (
	prefaceBytes       = 24
	frameHeaderBytes   = 9
	frameSettings      = 4
	frameWindowUpdate  = 8
	settingInitialSize = 4
	defaultWindow      = 65535
)

// Windows returns how many bytes the client that connected last allows the server to
// send ahead, in one stream and over the connection, by its first frames.
func (s *FakeServer) Windows(tb testing.TB) (stream, conn int) {
	tb.Helper()
	s.listener.mu.Lock()
	c := s.listener.last
	s.listener.mu.Unlock()
	if c == nil {
		tb.Fatal("no client has connected")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	stream, conn = defaultWindow, defaultWindow
	for b := c.hello[min(prefaceBytes, len(c.hello)):]; len(b) >= frameHeaderBytes; {
		size := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		kind, streamID := b[3], binary.BigEndian.Uint32(b[5:])
		b = b[frameHeaderBytes:]
		if len(b) < size {
			break
		}
		payload := b[:size]
		b = b[size:]
		switch {
		case kind == frameSettings:
			for ; len(payload) >= 6; payload = payload[6:] {
				if binary.BigEndian.Uint16(payload) == settingInitialSize {
					stream = int(binary.BigEndian.Uint32(payload[2:]))
				}
			}
		case kind == frameWindowUpdate && streamID == 0 && len(payload) == 4:
			conn += int(binary.BigEndian.Uint32(payload))
		}
	}
	return stream, conn
}
