// Package snaptest has fixtures for tests and examples: an embedded etcd
// ([Start], [StartCluster], [Run]), a builder of synthetic databases ([DB]),
// functions that damage database files, and checks that nothing is left
// ([NoLeaks], [TreeList]). The library itself never imports it.
package snaptest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"golang.org/x/crypto/bcrypt"
)

// Config is the configuration of the etcd that [Run] boots. The zero Config is a new
// cluster of one member, in a temporary directory, on free loopback ports, without
// TLS.
type Config struct {
	// Name of the member, "default" if empty.
	Name string

	// DataDir is the data directory: a restored one, or one to create. Empty
	// means a temporary directory that Stop removes.
	DataDir string

	// WALDir is the WAL directory, inside DataDir if empty.
	WALDir string

	// PeerURL is the peer URL to advertise. The member listens on it if it is a
	// loopback URL, and otherwise, or if it is empty, on a free loopback port.
	PeerURL string

	// InitialCluster is "name=url,...", this member alone if empty. It is
	// ignored when DataDir already holds a member.
	InitialCluster string

	// Token is the initial cluster token.
	Token string

	// Existing joins a running cluster in which this member, or learner, has
	// been added. See Join.
	Existing bool

	// TLS serves clients with a certificate of a CA created for this server.
	// ClientCertAuth requires one from them too, and implies TLS.
	TLS            bool
	ClientCertAuth bool

	// SnapshotCount is the number of entries between raft snapshots. QuotaBytes is
	// the size above which writes raise an alarm. Zero means etcd's defaults.
	SnapshotCount uint64
	QuotaBytes    int64

	// Logger gets etcd's log. If it is nil, etcd does not log, and if it does not
	// start, the error has its last warnings.
	Logger *zap.Logger

	// Configure may change the configuration at the end.
	Configure func(*embed.Config)
}

// Option changes the Config of [Start].
type Option func(*Config)

// From boots an existing data directory; walDir is empty unless it is separate.
func From(dataDir, walDir string) Option {
	return func(c *Config) { c.DataDir, c.WALDir = dataDir, walDir }
}

// WithTLS serves TLS, and requires client certificates if mutual.
func WithTLS(mutual bool) Option {
	return func(c *Config) { c.TLS, c.ClientCertAuth = true, mutual }
}

// With changes anything else.
func With(f func(*Config)) Option { return f }

// Etcd is a running etcd member.
type Etcd struct {
	Name    string
	DataDir string
	PeerURL string // advertised
	Server  *embed.Etcd

	certs      *certs // nil without TLS
	clientAuth bool
	scratch    string // removed by Stop

	mu       sync.Mutex
	client   *clientv3.Client
	stopOnce sync.Once
}

// Start boots an etcd and stops it when the test ends.
func Start(tb testing.TB, opts ...Option) *Etcd {
	tb.Helper()
	var cfg Config
	for _, opt := range opts {
		opt(&cfg)
	}
	if cfg.DataDir == "" {
		cfg.DataDir = filepath.Join(tb.TempDir(), "etcd")
	}
	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	defer cancel()
	e, err := Run(ctx, cfg)
	if err != nil {
		tb.Fatalf("start etcd: %v", err)
	}
	tb.Cleanup(e.Stop)
	return e
}

// bootTimeout is generous: it only ends tests that would hang otherwise.
const bootTimeout = 2 * time.Minute

// Run boots an etcd and returns when it serves clients. The caller stops it.
// On error nothing runs, and a temporary directory is removed; a DataDir of the
// caller may have been written to.
func Run(ctx context.Context, cfg Config) (_ *Etcd, err error) {
	if cfg.Name == "" {
		cfg.Name = embed.DefaultName
	}
	e := &Etcd{Name: cfg.Name, DataDir: cfg.DataDir, clientAuth: cfg.ClientCertAuth}
	defer func() {
		if err != nil {
			e.Stop()
		}
	}()
	if cfg.DataDir == "" || cfg.TLS || cfg.ClientCertAuth {
		if e.scratch, err = os.MkdirTemp("", "snaptest-etcd-*"); err != nil {
			return nil, err
		}
	}
	if cfg.DataDir == "" {
		e.DataDir = filepath.Join(e.scratch, "data")
	}
	if cfg.TLS || cfg.ClientCertAuth {
		if e.certs, err = newCerts(e.scratch); err != nil {
			return nil, err
		}
	}
	warnings := &logTail{}
	lg := cfg.Logger
	if lg == nil {
		lg = warnings.logger()
	}
	if err = e.listen(ctx, cfg, lg); err != nil {
		return nil, warnings.explain(err)
	}
	select {
	case <-e.Server.Server.ReadyNotify():
		return e, nil
	case err = <-e.Server.Err():
	case <-e.Server.Server.StopNotify():
		err = errors.New("etcd stopped while it started")
	case <-ctx.Done():
		err = fmt.Errorf("wait for etcd to serve: %w", ctx.Err())
	}
	if errors.Is(err, context.Canceled) {
		return nil, err // cancelled by the caller: the log does not matter
	}
	return nil, warnings.explain(err)
}

// listen starts the server. Another process can take a port between its choice and
// the bind. listen then replaces a port that it has chosen, and waits for one that
// the caller has named.
func (e *Etcd) listen(ctx context.Context, cfg Config, lg *zap.Logger) error {
	for attempt := 0; ; attempt++ {
		ec, err := e.embedConfig(cfg, lg)
		if err != nil {
			return err
		}
		e.Server, err = embed.StartEtcd(ec)
		if !errors.Is(err, syscall.EADDRINUSE) || attempt == 50 {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (e *Etcd) embedConfig(cfg Config, lg *zap.Logger) (*embed.Config, error) {
	clientURL, err := freeURL()
	if err != nil {
		return nil, err
	}
	listenPeer, err := freeURL()
	if err != nil {
		return nil, err
	}
	advertised := listenPeer
	if cfg.PeerURL != "" {
		u, err := url.Parse(cfg.PeerURL)
		if err != nil {
			return nil, fmt.Errorf("peer URL: %w", err)
		}
		advertised = *u
		if ip := net.ParseIP(u.Hostname()); u.Hostname() == "localhost" || ip.IsLoopback() {
			listenPeer = url.URL{Scheme: u.Scheme, Host: u.Host}
		}
	}
	e.PeerURL = advertised.String()

	ec := embed.NewConfig()
	ec.Name, ec.Dir, ec.WalDir = cfg.Name, e.DataDir, cfg.WALDir
	ec.ListenPeerUrls = []url.URL{listenPeer}
	ec.AdvertisePeerUrls = []url.URL{advertised}
	if ec.InitialCluster = cfg.InitialCluster; ec.InitialCluster == "" {
		ec.InitialCluster = cfg.Name + "=" + e.PeerURL
	}
	if cfg.Token != "" {
		ec.InitialClusterToken = cfg.Token
	}
	if cfg.Existing {
		ec.ClusterState = embed.ClusterStateFlagExisting
	}
	if e.certs != nil {
		clientURL.Scheme = "https"
		ec.ClientTLSInfo = e.certs.serverTLS(cfg.ClientCertAuth)
	}
	ec.ListenClientUrls = []url.URL{clientURL}
	ec.AdvertiseClientUrls = ec.ListenClientUrls

	ec.TickMs, ec.ElectionMs = 50, 500
	ec.UnsafeNoFsync = true
	ec.StrictReconfigCheck = false // it requires members to be connected for 5 s before another may join
	ec.EnableGRPCGateway = false
	ec.BcryptCost = uint(bcrypt.MinCost)
	if cfg.SnapshotCount > 0 {
		ec.SnapshotCount = cfg.SnapshotCount
	}
	ec.QuotaBackendBytes = cfg.QuotaBytes
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(lg)
	if cfg.Configure != nil {
		cfg.Configure(ec)
	}
	return ec, nil
}

// Endpoint is the client URL.
func (e *Etcd) Endpoint() string {
	return e.Server.Config().AdvertiseClientUrls[0].String()
}

// ClientConfig reaches this one member, with the certificates that it requires.
func (e *Etcd) ClientConfig() clientv3.Config {
	return clientv3.Config{
		Endpoints:   []string{e.Endpoint()},
		DialTimeout: 10 * time.Second,
		TLS:         e.TLSConfig(e.clientAuth),
		Logger:      zap.NewNop(),
	}
}

// TLSConfig trusts the server's CA and, if asked, has a client certificate. It is
// nil without TLS.
func (e *Etcd) TLSConfig(clientCert bool) *tls.Config {
	if e.certs == nil {
		return nil
	}
	return e.certs.clientTLS(clientCert)
}

// Client returns a client of this member, the same one each time. Stop closes it.
// It panics if it cannot create a client, which only a broken ClientConfig causes.
func (e *Etcd) Client() *clientv3.Client {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.client == nil {
		c, err := clientv3.New(e.ClientConfig())
		if err != nil {
			panic(fmt.Sprintf("snaptest: client of %s: %v", e.Endpoint(), err))
		}
		e.client = c
	}
	return e.client
}

// Leads reports whether the member considers itself the leader.
func (e *Etcd) Leads() bool {
	return e.Server.Server.Leader() == e.Server.Server.MemberID()
}

// Stop closes the client, stops the member, and removes a temporary data directory.
// It may be called again.
func (e *Etcd) Stop() {
	e.stopOnce.Do(func() {
		e.mu.Lock()
		if e.client != nil {
			_ = e.client.Close()
		}
		e.mu.Unlock()
		if e.Server != nil {
			// Close alone would wait for ever for a member that is not ready.
			select {
			case <-e.Server.Server.ReadyNotify():
			default:
				e.Server.Server.Stop()
			}
			e.Server.Close()
		}
		if e.scratch != "" {
			_ = os.RemoveAll(e.scratch)
		}
	})
}
