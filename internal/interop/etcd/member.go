package etcd

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Config is the configuration of one member.
type Config struct {
	Release *Release
	Name    string
	DataDir string // its log is written to DataDir + ".log"
	PeerURL string // advertised and listened on

	InitialCluster string // empty: this member alone
	Join           bool   // the cluster exists already
	Flags          []string

	Username, Password string // for the clients, empty: without
	TLS                *tls.Config
}

// Member is a running server.
type Member struct {
	Config
	ClientURL string

	cmd    *exec.Cmd
	exited chan struct{}
	exit   error // valid once exited is closed
}

// Start starts the process. The member serves once Ready has returned nil.
// Stop must be called.
func Start(ctx context.Context, cfg Config) (*Member, error) {
	path, err := cfg.Release.Get(ctx)
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	scheme, host, listen := "http", "127.0.0.1", cfg.PeerURL
	if cfg.TLS != nil {
		scheme, host = "https", "localhost"
		listen = strings.Replace(cfg.PeerURL, "localhost", "127.0.0.1", 1)
	}
	if cfg.InitialCluster == "" {
		cfg.InitialCluster = cfg.Name + "=" + cfg.PeerURL
	}
	state := "new"
	if cfg.Join {
		state = "existing"
	}
	m := &Member{
		Config:    cfg,
		ClientURL: fmt.Sprintf("%s://%s:%d", scheme, host, port),
		exited:    make(chan struct{}),
	}
	args := append([]string{
		"--name", cfg.Name,
		"--data-dir", cfg.DataDir,
		"--listen-peer-urls", listen,
		"--initial-advertise-peer-urls", cfg.PeerURL,
		"--listen-client-urls", fmt.Sprintf("%s://127.0.0.1:%d", scheme, port),
		"--advertise-client-urls", m.ClientURL,
		"--initial-cluster", cfg.InitialCluster,
		"--initial-cluster-state", state,
		"--logger", "zap",
		"--log-outputs", "stderr",
		"--bcrypt-cost", "4",
	}, cfg.Flags...)

	log, err := os.Create(m.LogPath())
	if err != nil {
		return nil, err
	}
	m.cmd = exec.Command(path, args...)
	m.cmd.Dir = filepath.Dir(cfg.DataDir)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	dieWithParent(m.cmd)
	err = m.cmd.Start()
	if err = errors.Join(err, log.Close()); err != nil {
		return nil, err
	}
	go func() {
		m.exit = m.cmd.Wait()
		close(m.exited)
	}()
	return m, nil
}

// Stop kills the process and waits for its end. It may be called again.
func (m *Member) Stop() {
	_ = m.cmd.Process.Kill() // fails only when it has ended already
	<-m.exited
}

// LogPath is the file that the server logs to.
func (m *Member) LogPath() string { return m.DataDir + ".log" }

// ExitError reports that the server ended by itself.
type ExitError struct {
	Reason string // from its log
	Err    error
}

func (e *ExitError) Error() string { return fmt.Sprintf("server ended (%v): %s", e.Err, e.Reason) }

// Ready waits until the member belongs to a cluster with a leader and answers
// a linearizable read. It returns an *ExitError at once when the process ends.
func (m *Member) Ready(ctx context.Context) error {
	return m.wait(ctx, "serve", func(ctx context.Context) error {
		cli, err := m.Client(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = cli.Close() }()
		st, err := cli.Status(ctx, m.ClientURL)
		if err != nil {
			return err
		}
		if st.Leader == 0 {
			return errors.New("no leader")
		}
		_, err = cli.Get(ctx, "\x00")
		return err
	})
}

// ClusterVersion waits until the cluster's version is the one that this
// server states, as it is once all members have announced themselves, and
// returns the versions that the cluster had meanwhile, in order.
func (m *Member) ClusterVersion(ctx context.Context) (seen []string, err error) {
	err = m.wait(ctx, "settle on a cluster version", func(ctx context.Context) error {
		v, err := m.clusterVersion(ctx)
		if err != nil {
			return err
		}
		if len(seen) == 0 || seen[len(seen)-1] != v {
			seen = append(seen, v)
		}
		if v != m.Release.Minor+".0" {
			return fmt.Errorf("cluster version is %q", v)
		}
		return nil
	})
	return seen, err
}

func (m *Member) clusterVersion(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.ClientURL+"/version", nil)
	if err != nil {
		return "", err
	}
	hc := &http.Client{Transport: &http.Transport{TLSClientConfig: m.TLS, DisableKeepAlives: true}}
	resp, err := hc.Do(req)
	if err != nil {
		return "", err
	}
	var v struct {
		Cluster string `json:"etcdcluster"`
	}
	err = json.NewDecoder(resp.Body).Decode(&v)
	_, _ = io.Copy(io.Discard, resp.Body)
	return v.Cluster, errors.Join(err, resp.Body.Close())
}

// wait polls try until it succeeds, the process ends or ctx does.
func (m *Member) wait(ctx context.Context, what string, try func(context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := try(attempt)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-m.exited:
			return &ExitError{Reason: m.reason(), Err: m.exit}
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to %s: %w, last: %w", m.Name, what, ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ClientConfig is the configuration of a client of this member alone.
func (m *Member) ClientConfig() clientv3.Config {
	return clientv3.Config{
		Endpoints:   []string{m.ClientURL},
		DialTimeout: 30 * time.Second,
		Username:    m.Username,
		Password:    m.Password,
		TLS:         m.TLS,
		Logger:      zap.NewNop(),
	}
}

// Client connects to this member.
func (m *Member) Client(ctx context.Context) (*clientv3.Client, error) {
	cfg := m.ClientConfig()
	cfg.Context = ctx
	return clientv3.New(cfg)
}

var (
	pointer = regexp.MustCompile(`0x[0-9a-f]{6,}`)
	fatal   = regexp.MustCompile(`^panic: |"level":"(fatal|panic)"`)
)

// reason returns the cause of the server's end from its log: the first fatal line,
// or else the last line of all.
func (m *Member) reason() string {
	f, err := os.Open(m.LogPath())
	if err != nil {
		return err.Error()
	}
	defer func() { _ = f.Close() }()
	var last string
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		last = sc.Text()
		if fatal.MatchString(last) {
			break
		}
	}
	var entry struct{ Msg, Error string }
	if json.Unmarshal([]byte(last), &entry) == nil {
		last = entry.Msg
		if entry.Error != "" {
			last += ": " + entry.Error
		}
	}
	return pointer.ReplaceAllString(last, "0x…")
}
