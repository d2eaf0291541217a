package snaptest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Member is one member of [RunCluster]: the Config fields of the same names.
type Member struct {
	Name    string
	DataDir string // restored; empty starts a new member
	WALDir  string
	PeerURL string
}

// StartCluster is [RunCluster] for a test: it stops the members when the test ends.
func StartCluster(tb testing.TB, members []Member, opts ...Option) []*Etcd {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	defer cancel()
	members = slices.Clone(members)
	for i := range members {
		if members[i].DataDir == "" {
			members[i].DataDir = filepath.Join(tb.TempDir(), "etcd")
		}
	}
	cluster, err := RunCluster(ctx, members, opts...)
	if err != nil {
		tb.Fatalf("start cluster: %v", err)
	}
	tb.Cleanup(func() { StopAll(cluster) })
	return cluster
}

// RunCluster boots all members at once and waits until they have a leader and each
// serves a linearizable read. The caller stops them with [StopAll]. On error nothing
// runs.
func RunCluster(ctx context.Context, members []Member, opts ...Option) ([]*Etcd, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	members = slices.Clone(members)
	initial := make([]string, len(members))
	for i := range members {
		m := &members[i]
		if m.PeerURL == "" {
			u, err := freeURL()
			if err != nil {
				return nil, err
			}
			m.PeerURL = u.String()
		}
		initial[i] = m.Name + "=" + m.PeerURL
	}
	cluster := make([]*Etcd, len(members))
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		cfg := Config{
			Name: m.Name, DataDir: m.DataDir, WALDir: m.WALDir, PeerURL: m.PeerURL,
			InitialCluster: strings.Join(initial, ","),
		}
		for _, opt := range opts {
			opt(&cfg)
		}
		wg.Go(func() {
			if cluster[i], errs[i] = Run(ctx, cfg); errs[i] != nil {
				errs[i] = fmt.Errorf("member %s: %w", cfg.Name, errs[i])
				cancel()
				return
			}
			_, errs[i] = cluster[i].Client().Get(ctx, "snaptest")
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		StopAll(cluster)
		return nil, err
	}
	return cluster, nil
}

// StopAll stops the followers at the same time and then the leader, which would
// otherwise try for seconds to hand over to a follower that stops too.
func StopAll(cluster []*Etcd) {
	var wg sync.WaitGroup
	var leaders []*Etcd
	for _, e := range cluster {
		switch {
		case e == nil:
		case e.Leads():
			leaders = append(leaders, e)
		default:
			wg.Go(e.Stop)
		}
	}
	wg.Wait()
	for _, e := range leaders {
		e.Stop()
	}
}

// Join adds a member to the cluster of e, boots it with an empty data directory
// and stops it when the test ends. A learner gets the data but has no vote.
func Join(tb testing.TB, e *Etcd, name string, learner bool, opts ...Option) *Etcd {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	defer cancel()
	peerURL := FreePeerURLs(tb, 1)[0]
	add := e.Client().MemberAdd
	if learner {
		add = e.Client().MemberAddAsLearner
	}
	resp, err := add(ctx, []string{peerURL})
	if err != nil {
		tb.Fatalf("add member %s: %v", name, err)
	}
	var initial []string
	for _, m := range resp.Members {
		if m.ID == resp.Member.ID {
			m.Name = name
		}
		initial = append(initial, m.Name+"="+m.PeerURLs[0])
	}
	return Start(tb, append([]Option{func(c *Config) {
		c.Name, c.PeerURL, c.Existing = name, peerURL, true
		c.InitialCluster = strings.Join(initial, ",")
	}}, opts...)...)
}

// FreePeerURLs returns n distinct loopback URLs whose ports are free now. It returns
// no port twice in one process.
func FreePeerURLs(tb testing.TB, n int) []string {
	tb.Helper()
	urls := make([]string, n)
	for i := range urls {
		u, err := freeURL()
		if err != nil {
			tb.Fatal(err)
		}
		urls[i] = u.String()
	}
	return urls
}

var given struct {
	sync.Mutex
	ports map[int]bool
}

// freeURL chooses a port below the range of the local ports of outgoing connections,
// so that none of those takes it before the bind.
func freeURL() (url.URL, error) {
	given.Lock()
	defer given.Unlock()
	if given.ports == nil {
		given.ports = make(map[int]bool)
	}
	var lastErr error
	for range 1000 {
		port := 10000 + rand.IntN(20000)
		if given.ports[port] {
			continue
		}
		host := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", host)
		if err != nil {
			lastErr = err
			continue
		}
		if err := l.Close(); err != nil {
			return url.URL{}, err
		}
		given.ports[port] = true
		return url.URL{Scheme: "http", Host: host}, nil
	}
	return url.URL{}, fmt.Errorf("no free loopback port: %w", lastErr)
}
