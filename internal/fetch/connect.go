package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"
)

// How far an attempt to connect got before it timed out.
var (
	errLookingUp   = errors.New("the look-up of the host name was not answered")
	errDialing     = errors.New("the TCP connection was not answered")
	errHandshaking = errors.New("connected, but the TLS handshake was not answered")
	errGreeting    = errors.New("connected, but the server sent nothing")
	errGreeted     = errors.New("connected, but the server did not answer as HTTP/2 has it")
	errHungUp      = errors.New("the server closed the connection")
	errLost        = errors.New("the connection was lost before the server sent anything")
)

// dialOptions report each step of an attempt to connect to the watchdog. A dialer
// or credentials in the caller's options replace them; then gRPC gives the reason.
func (w *watchdog) dialOptions(cfg clientv3.Config) []grpc.DialOption {
	opts := []grpc.DialOption{
		grpc.WithStatsHandler(connectionStats{watch: w}),
		grpc.WithTransportCredentials(watchedCredentials{transportCredentials(cfg), w}),
	}
	if !proxied(cfg.Endpoints[0]) { // gRPC's own dialer supports proxies
		opts = append(opts, grpc.WithContextDialer(w.dial))
	}
	return opts
}

// transportCredentials are the ones that etcd's client uses for the endpoint.
func transportCredentials(cfg clientv3.Config) credentials.TransportCredentials {
	switch endpointScheme(cfg.Endpoints[0]) {
	case "http":
		return insecure.NewCredentials()
	case "https", "unixs":
		return credentials.NewTLS(markRefusals(cfg.TLS))
	}
	if cfg.TLS == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(markRefusals(cfg.TLS))
}

// refusedError is the error of a TLS callback of the caller.
type refusedError struct{ error }

func (e *refusedError) Unwrap() error { return e.error }

// markRefusals returns cfg with callbacks whose errors are a refusedError.
func markRefusals(cfg *tls.Config) *tls.Config {
	if cfg == nil {
		return nil
	}
	marked := cfg.Clone()
	mark := func(err error) error {
		if err != nil {
			err = &refusedError{err}
		}
		return err
	}
	if verify := cfg.VerifyPeerCertificate; verify != nil {
		marked.VerifyPeerCertificate = func(raw [][]byte, chains [][]*x509.Certificate) error { return mark(verify(raw, chains)) }
	}
	if verify := cfg.VerifyConnection; verify != nil {
		marked.VerifyConnection = func(state tls.ConnectionState) error { return mark(verify(state)) }
	}
	return marked
}

// endpointScheme returns the scheme of a URL, or "" if there is none.
func endpointScheme(endpoint string) string {
	if strings.HasPrefix(endpoint, "unixs:") {
		return "unixs"
	}
	if u, err := url.Parse(endpoint); err == nil && strings.Contains(endpoint, "://") {
		return u.Scheme
	}
	return ""
}

// proxied reports whether the environment names a proxy for the endpoint.
func proxied(endpoint string) bool {
	if strings.HasPrefix(endpoint, "unix") {
		return false
	}
	_, host, ok := strings.Cut(endpoint, "://")
	if !ok {
		host = endpoint
	}
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: host}})
	return err == nil && proxy != nil
}

// dial does what gRPC does without a dialer, and reports how it ends.
func (w *watchdog) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := w.dialAny(ctx, address)
	if err != nil {
		w.failed(err)
		return nil, err
	}
	w.attempt(nil, false) // the caller's own credentials report nothing
	return conn, nil
}

func (w *watchdog) dialAny(ctx context.Context, address string) (net.Conn, error) {
	// Keep-alives are on, at the system's own interval.
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1}}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		w.attempt(errDialing, false)
		return dialer.DialContext(ctx, "unix", strings.TrimPrefix(path, "//"))
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	w.attempt(errLookingUp, false)
	found, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return nil, err
	}
	w.attempt(errDialing, false)
	addresses := make([]string, len(found))
	for i, ip := range found {
		addresses[i] = net.JoinHostPort(ip.String(), port)
	}
	return dialFirst(ctx, &dialer, addresses)
}

// failed notes why an attempt to connect failed.
func (w *watchdog) failed(err error) {
	reason := err
	switch {
	case errors.Is(err, net.ErrClosed): // by gRPC, after the failure
		return
	case errors.Is(err, io.EOF):
		reason = errHungUp
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		reason = errors.New(err.Error()) // one attempt timed out, not the caller's context
	}
	w.attempt(reason, isFinal(err))
}

// isFinal reports whether the next attempt would fail in the same way: one side
// refuses the certificate of the other, or the server does not speak TLS.
func isFinal(err error) bool {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var refused *refusedError
	if errors.As(err, &certificate) || errors.As(err, &record) || errors.As(err, &refused) {
		return true
	}
	// This is how crypto/tls reports an alert of the other side. A server that
	// cannot read its own certificate, while someone replaces it, sends "internal
	// error".
	var remote *net.OpError
	return errors.As(err, &remote) && remote.Op == "remote error" && remote.Err.Error() != "tls: internal error"
}

// watchedCredentials report how a handshake ends.
type watchedCredentials struct {
	credentials.TransportCredentials
	watch *watchdog
}

// ClientHandshake implements [credentials.TransportCredentials].
func (c watchedCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c.watch.attempt(errHandshaking, false)
	conn, info, err := c.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		c.watch.failed(fmt.Errorf("TLS handshake: %w", err))
		return nil, nil, err
	}
	c.watch.attempt(errGreeting, false)
	return &greetedConn{Conn: conn, watch: c.watch}, info, nil
}

// Clone implements [credentials.TransportCredentials].
func (c watchedCredentials) Clone() credentials.TransportCredentials {
	return watchedCredentials{c.TransportCredentials.Clone(), c.watch}
}

// greetedConn reports why a server sent nothing. A server that refuses the client
// certificate reports that only after the handshake.
type greetedConn struct {
	net.Conn
	watch   *watchdog
	greeted atomic.Bool
}

// Read implements [net.Conn].
func (c *greetedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.greeted.Load() {
		return n, err
	}
	if n > 0 {
		c.greeted.Store(true)
		c.watch.attempt(errGreeted, false)
	} else if err != nil {
		c.watch.failed(err)
	}
	return n, err
}

// connectionStats reports the first call on a connection, and its end.
type connectionStats struct {
	watch *watchdog
}

// HandleRPC implements [stats.Handler].
func (s connectionStats) HandleRPC(_ context.Context, event stats.RPCStats) {
	if _, ok := event.(*stats.OutHeader); ok {
		s.watch.established()
	}
}

// TagRPC implements [stats.Handler].
func (connectionStats) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// TagConn implements [stats.Handler].
func (connectionStats) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements [stats.Handler].
func (s connectionStats) HandleConn(_ context.Context, event stats.ConnStats) {
	if _, ok := event.(*stats.ConnEnd); ok {
		s.watch.lost()
	}
}
