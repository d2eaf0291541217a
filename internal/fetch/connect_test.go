package fetch_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// never is a timeout that no test waits for.
const never = time.Hour

func TestSaveFromUnreachable(t *testing.T) {
	endpoints := map[string]struct {
		endpoint func(testing.TB) string
		text     string
		cause    error
	}{
		"silent":     {endpoint: snaptest.SilentEndpoint, text: "connected, but the server sent nothing"},
		"silent TLS": {endpoint: silentTLS, text: "connected, but the TLS handshake was not answered"},
		"refusing":   {endpoint: snaptest.RefusingEndpoint, text: "connection refused", cause: syscall.ECONNREFUSED},
		"unknown host": {
			endpoint: func(testing.TB) string { return "http://etcd.invalid:2379" },
			text:     "lookup etcd.invalid",
		},
		"hanging up": {endpoint: hangingUp, text: "the server closed the connection"},
		"talking":    {endpoint: talking, text: "connected, but the server did not answer as HTTP/2 has it"},
	}
	snaptest.NoLeaks(t)
	for name, tc := range endpoints {
		for login, user := range map[string]string{"": "", " with login": "root"} {
			t.Run(name+login, func(t *testing.T) {
				if login != "" {
					short.Skip(t, "waits for the same timeouts once more")
				}
				apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
					t.Parallel()
					cfg := clientv3.Config{Endpoints: []string{tc.endpoint(t)}, Username: user, Password: user}

					err := timedOut(t, snapshot.ErrUnreachable, func(connect time.Duration) error {
						_, err := fetch(t.Context(), t, snapshot.New(snapshot.WithConnectTimeout(connect)), cfg)
						return err
					}, func(err error) bool { return strings.Contains(err.Error(), tc.text) })
					require.ErrorContains(t, err, cfg.Endpoints[0]+", within ")
					if tc.cause != nil {
						require.ErrorIs(t, err, tc.cause)
					}

					// The stall timeout has not begun.
					m := snapshot.New(snapshot.WithConnectTimeout(0), snapshot.WithStallTimeout(1))
					ctx, cancel := context.WithTimeout(t.Context(), shortStall)
					defer cancel()
					_, err = fetch(ctx, t, m, cfg)
					require.ErrorIs(t, err, context.DeadlineExceeded)
					apitest.RequireNoOther(t, err, context.DeadlineExceeded)

					ctx, cancel = context.WithCancel(t.Context())
					time.AfterFunc(shortStall/4, cancel)
					_, err = fetch(ctx, t, m, cfg)
					require.ErrorIs(t, err, context.Canceled)
					apitest.RequireNoOther(t, err, context.Canceled)
				})
			})
		}
	}
}

func silentTLS(tb testing.TB) string {
	return strings.Replace(snaptest.SilentEndpoint(tb), "http:", "https:", 1)
}

func hangingUp(tb testing.TB) string { return answering(tb, "") }

func talking(tb testing.TB) string { return answering(tb, "HTTP/1.1 400 Bad Request\r\n\r\n") }

// answering is a URL at which each connection gets one answer and is closed.
func answering(tb testing.TB, text string) string {
	return snaptest.Accept(tb, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1<<10)) // unread bytes would reset the connection
		_, _ = io.WriteString(c, text)
		_ = c.Close()
	})
}

// refuseAtFirst is a dialer of the caller's own that fails so many times.
func refuseAtFirst(times int) grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		if times--; times >= 0 {
			return nil, syscall.ECONNREFUSED
		}
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	})
}

// A server that comes up within the connect timeout is used. With the pauses of
// gRPC, which begin with a second, six failures would take 26 seconds.
func TestSaveFromServerThatComesUp(t *testing.T) {
	db := snaptest.Opaque(8192)
	snaptest.NoLeaks(t)
	for login, user := range map[string]string{"no login": "", "login": "root"} {
		t.Run(login, func(t *testing.T) {
			if user != "" {
				short.Skip(t, "waits for the same attempts once more")
			}
			apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
				t.Parallel()
				s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(db) })
				cfg := as(s.ClientConfig(), user, user)
				cfg.DialOptions = []grpc.DialOption{refuseAtFirst(6)}
				got, err := fetch(t.Context(), t, snapshot.New(snapshot.WithConnectTimeout(longStall)), cfg)
				require.NoError(t, err)
				require.Equal(t, snaptest.WithTrailer(db), got)
			})
		})
	}
}

// What the dialer of the caller says is in the error, in words.
func TestSaveUnreachableByDialerOfCaller(t *testing.T) {
	cfg := clientv3.Config{Endpoints: []string{"http://127.0.0.1:1"}, DialOptions: []grpc.DialOption{
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return nil, apitest.ErrCaller }),
	}}
	_ = timedOut(t, snapshot.ErrUnreachable, func(connect time.Duration) error {
		_, err := snapshot.New(snapshot.WithConnectTimeout(connect)).SaveTo(t.Context(), cfg, io.Discard)
		return err
	}, func(err error) bool { return strings.Contains(err.Error(), apitest.ErrCaller.Error()) })
}

// The clock of the server starts when it can be reached: here that takes longer
// than the server may be silent. A busy machine may need more time for both.
func TestSaveStallTimeoutCountsFromTheConnection(t *testing.T) {
	db := snaptest.Opaque(8192)
	for stall := shortStall; ; stall *= 2 {
		s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(db) })
		cfg := s.ClientConfig()
		cfg.DialOptions = []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			select {
			case <-time.After(stall + stall/2):
			case <-ctx.Done():
			}
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		})}
		m := snapshot.New(snapshot.WithConnectTimeout(never), snapshot.WithStallTimeout(stall))
		_, err := m.SaveTo(t.Context(), cfg, io.Discard)
		if err == nil {
			return
		}
		require.ErrorIs(t, err, snapshot.ErrStalled)
		require.NotEmpty(t, s.Tokens(), "stalled before there was a connection")
		require.Less(t, stall, longStall)
	}
}

// A login that is not answered is a silent server.
func TestSaveLoginStalls(t *testing.T) {
	apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
		snaptest.NoLeaks(t)
		s := snaptest.Serve(t, nil)
		s.HangLogins()
		_, err := fetch(t.Context(), t, snapshot.New(snapshot.WithConnectTimeout(longStall), snapshot.WithStallTimeout(shortStall)),
			as(s.ClientConfig(), "root", "root"))
		require.ErrorIs(t, err, snapshot.ErrStalled)
		apitest.RequireNoOther(t, err, snapshot.ErrStalled)
		s.WaitReleased(t)
	})
}

func TestSaveLoginTimeout(t *testing.T) {
	snaptest.NoLeaks(t)
	s := snaptest.Serve(t, nil)
	s.HangLogins()
	for name, tc := range map[string]struct {
		endpoint string
		want     error
	}{
		"no answer":     {s.Endpoint(), snapshot.ErrStalled},
		"no connection": {snaptest.SilentEndpoint(t), snapshot.ErrUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := as(clientv3.Config{Endpoints: []string{tc.endpoint}}, "root", "root")
			for cfg.DialTimeout = shortStall / 4; ; cfg.DialTimeout *= 2 {
				_, err := snapshot.New(snapshot.WithConnectTimeout(never)).SaveTo(t.Context(), cfg, io.Discard)
				require.ErrorIs(t, err, context.DeadlineExceeded, "as etcd's client says it")
				require.ErrorContains(t, err, fmt.Sprintf("DialTimeout of %v", cfg.DialTimeout))
				if errors.Is(err, tc.want) {
					break
				}
				require.ErrorIs(t, err, snapshot.ErrUnreachable, "before a busy machine had connected")
				require.Less(t, cfg.DialTimeout, longStall)
			}
			ctx, cancel := context.WithTimeout(t.Context(), shortStall/8)
			defer cancel()
			cfg.DialTimeout = longStall
			_, err := snapshot.New().SaveTo(ctx, cfg, io.Discard)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			apitest.RequireNoOther(t, err, context.DeadlineExceeded)
		})
	}
}

// Where one side refuses the other, no other attempt can help.
func TestSaveRefusedByTLS(t *testing.T) {
	snaptest.NoLeaks(t)
	e := snaptest.Start(t, snaptest.WithTLS(true))
	plain := snaptest.Serve(t, nil)
	trusted := func(change func(*tls.Config)) *tls.Config {
		cfg := e.TLSConfig(true)
		change(cfg)
		return cfg
	}
	for name, tc := range map[string]struct {
		endpoint string
		tls      *tls.Config
		option   grpc.DialOption
		cause    any
		text     string
	}{
		"unknown authority": {
			tls:   &tls.Config{MinVersion: tls.VersionTLS12},
			cause: new(x509.UnknownAuthorityError),
		},
		"no TLS in the Config": {cause: new(x509.UnknownAuthorityError)},
		"expired": {
			tls:   trusted(func(c *tls.Config) { c.Time = func() time.Time { return time.Now().Add(48 * time.Hour) } }),
			cause: new(x509.CertificateInvalidError),
			text:  "expired",
		},
		"another name": {
			tls:    e.TLSConfig(true),
			option: grpc.WithAuthority("elsewhere.example"),
			cause:  new(x509.HostnameError),
		},
		"refused by the caller's VerifyConnection": {
			tls:   trusted(func(c *tls.Config) { c.VerifyConnection = func(tls.ConnectionState) error { return errMine } }),
			cause: new(interface{ Unwrap() error }),
			text:  errMine.Error(),
		},
		"refused by the caller's VerifyPeerCertificate": {
			tls: trusted(func(c *tls.Config) {
				c.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { return errMine }
			}),
			cause: new(interface{ Unwrap() error }),
			text:  errMine.Error(),
		},
		"no certificate": {
			tls:   e.TLSConfig(false),
			cause: new(*net.OpError),
			text:  "remote error: tls: certificate required",
		},
		"no certificate in TLS 1.2": {
			tls:   trusted(func(c *tls.Config) { c.Certificates, c.MaxVersion = nil, tls.VersionTLS12 }),
			cause: new(*net.OpError),
			text:  "remote error: tls:",
		},
		"a server without TLS": {
			endpoint: strings.Replace(plain.Endpoint(), "http:", "https:", 1),
			cause:    new(tls.RecordHeaderError),
		},
	} {
		for login, user := range map[string]string{"": "", " with login": "root"} {
			t.Run(name+login, func(t *testing.T) {
				apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
					cfg := as(e.ClientConfig(), user, user)
					cfg.DialTimeout = 0
					if tc.option != nil {
						cfg.DialOptions = []grpc.DialOption{tc.option}
					}
					if cfg.TLS = tc.tls; tc.endpoint != "" {
						cfg.Endpoints = []string{tc.endpoint}
					}
					m := snapshot.New(snapshot.WithConnectTimeout(never), snapshot.WithStallTimeout(never))
					_, err := fetch(t.Context(), t, m, cfg)
					require.ErrorIs(t, err, snapshot.ErrUnreachable)
					apitest.RequireNoOther(t, err, snapshot.ErrUnreachable)
					require.ErrorAs(t, err, tc.cause)
					require.ErrorContains(t, err, tc.text)
					require.ErrorContains(t, err, cfg.Endpoints[0])
				})
			})
		}
	}
}

// Credentials of the caller's own are used, and what gRPC says of them is in
// the error.
func TestSaveWithCredentialsOfCaller(t *testing.T) {
	snaptest.NoLeaks(t)
	e := snaptest.Start(t, snaptest.WithTLS(false))
	cfg := e.ClientConfig()
	cfg.DialOptions = []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(e.TLSConfig(true)))}
	cfg.TLS = nil
	requireSaved(t, cfg)

	cfg.DialOptions = []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(nil))}
	_ = timedOut(t, snapshot.ErrUnreachable, func(connect time.Duration) error {
		_, err := snapshot.New(snapshot.WithConnectTimeout(connect)).SaveTo(t.Context(), cfg, io.Discard)
		return err
	}, func(err error) bool { return strings.Contains(err.Error(), "certificate signed by unknown authority") })
}

// Save speaks TLS to the endpoints to which etcd's client does, and to no other.
func TestSaveSpeaksTLSWhereClientDoes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	first := make(chan byte)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var b [1]byte
			_, _ = c.Read(b[:])
			_ = c.Close()
			select {
			case first <- b[0]:
			case <-t.Context().Done():
				return
			}
		}
	}()
	dialer := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	})
	for _, endpoint := range []string{
		"http://etcd:2379", "https://etcd:2379", "HTTP://etcd:2379", "HTTPS://etcd:2379", "etcd:2379", "etcd", "etcd://etcd:2379",
		"http:2379", "https:2379", "unix:etcd:2379", "unixs:etcd:2379", "unix://etcd", "unixs://etcd", "unixs:///run/etcd", "http://%zz",
	} {
		for name, config := range map[string]*tls.Config{"TLS": {InsecureSkipVerify: true}, "no TLS": nil} {
			t.Run(endpoint+" "+name, func(t *testing.T) {
				cfg := clientv3.Config{Endpoints: []string{endpoint}, TLS: config, DialOptions: []grpc.DialOption{dialer}, Logger: zap.NewNop()}
				spoken := func(call func(context.Context)) byte {
					ctx, cancel := context.WithCancel(t.Context())
					done := make(chan struct{})
					go func() {
						defer close(done)
						call(ctx)
					}()
					defer cancel()
					var b byte // 0 where the client is refused before it dials
					select {
					case b = <-first:
					case <-done:
						return b
					}
					cancel()
					for {
						select {
						case <-first:
						case <-done:
							return b
						}
					}
				}
				want := spoken(func(ctx context.Context) {
					c, err := clientv3.New(cfg)
					if err != nil {
						return
					}
					_, _ = c.Get(ctx, "key")
					_ = c.Close()
				})
				got := spoken(func(ctx context.Context) { _, _ = snapshot.New().SaveTo(ctx, cfg, io.Discard) })
				require.Equal(t, want, got)
			})
		}
	}
}
