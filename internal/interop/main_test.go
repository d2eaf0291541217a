package interop_test

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/interop"
	"etcd.example/snapshot/internal/interop/etcd"
)

var update = flag.Bool("update", false, "rewrite RESULTS.md")

const (
	patience = time.Minute // for one server to start, or to stop
	quota    = 8 << 20     // bytes, of the servers that are saved
)

// scratch outlives each test: several tests use the origins.
var scratch string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() (code int) {
		var err error
		if scratch, err = os.MkdirTemp("", "interop-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() {
			for _, o := range origins {
				o.stop()
			}
			if err := os.RemoveAll(scratch); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}()
		if code = m.Run(); code != 0 {
			return code
		}
		if err := enoughRan(); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL:", err)
			return 1
		}
		if err := results.finish(); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL:", err)
			return 1
		}
		return 0
	}())
}

var (
	ranMu   sync.Mutex
	ran     = map[string]bool{} // by minor version: whether TestMatrix completed
	skipped = map[string]string{}
)

// narrowed reports whether only some of the tests were selected.
func narrowed() bool {
	for _, name := range []string{"test.run", "test.skip"} {
		if flag.Lookup(name).Value.String() != "" {
			return true
		}
	}
	return false
}

// enoughRan returns an error after a run of all tests that skipped too many
// versions.
func enoughRan() error {
	least := 3
	if s := os.Getenv("INTEROP_MIN"); s != "" {
		var err error
		if least, err = strconv.Atoi(s); err != nil {
			return fmt.Errorf("INTEROP_MIN: %w", err)
		}
	}
	if narrowed() || len(ran) >= least {
		return nil
	}
	return fmt.Errorf("only %d of %d etcd versions ran, want %d; skipped: %v",
		len(ran), len(etcd.Releases()), least, skipped)
}

// eachRelease runs test for every minor version that is available.
func eachRelease(t *testing.T, test func(t *testing.T, r *etcd.Release)) {
	for _, r := range etcd.Releases() {
		t.Run(r.Minor, func(t *testing.T) {
			need(t, r)
			t.Parallel()
			test(t, r)
		})
	}
}

func ranThrough(r *etcd.Release) {
	ranMu.Lock()
	defer ranMu.Unlock()
	ran[r.Minor] = true
}

func need(t *testing.T, r *etcd.Release) {
	t.Helper()
	if _, err := r.Get(t.Context()); err != nil {
		ranMu.Lock()
		defer ranMu.Unlock()
		skipped[r.Minor] = err.Error()
		t.Skip("not available: " + err.Error())
	}
}

// start starts a member, which stops when the test ends, if not before.
func start(t *testing.T, cfg etcd.Config) *etcd.Member {
	t.Helper()
	m, err := etcd.Start(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		m.Stop()
		if t.Failed() {
			log, err := os.ReadFile(m.LogPath())
			t.Logf("end of the log of %s %s (%v):\n%s", m.Release.Minor, m.Name, err, log[max(0, len(log)-2000):])
		}
	})
	return m
}

func ready(t *testing.T, members ...*etcd.Member) {
	t.Helper()
	for _, m := range members {
		require.NoError(t, m.Ready(soon(t)))
	}
}

func dial(t *testing.T, m *etcd.Member) *clientv3.Client {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cli, err := m.Client(ctx)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = cli.Close()
		cancel()
	})
	return cli
}

// soon returns a context for calls that a healthy server answers at once.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func peerURL(t *testing.T, scheme, host string) string {
	t.Helper()
	port, err := etcd.FreePort()
	require.NoError(t, err)
	return fmt.Sprintf("%s://%s:%d", scheme, host, port)
}

// cluster is a restored cluster before it is booted.
type cluster struct {
	scheme, host string
	tls          *tls.Config
	flags        []string
	user, pass   string
	edit         func(*snapshot.RestoreConfig)
}

// restored restores snap for a cluster of n members.
func (c cluster) restored(t *testing.T, r *etcd.Release, snap string, n int) []etcd.Config {
	t.Helper()
	if c.scheme == "" {
		c.scheme, c.host = "http", "127.0.0.1"
	}
	dir := t.TempDir()
	cfgs := make([]etcd.Config, n)
	initial := make([]string, n)
	for i := range cfgs {
		name := fmt.Sprintf("m%d", i)
		cfgs[i] = etcd.Config{
			Release:  r,
			Name:     name,
			DataDir:  filepath.Join(dir, name),
			PeerURL:  peerURL(t, c.scheme, c.host),
			Username: c.user,
			Password: c.pass,
			TLS:      c.tls,
			Flags:    c.flags,
		}
		initial[i] = name + "=" + cfgs[i].PeerURL
	}
	for i := range cfgs {
		cfg := snapshot.RestoreConfig{
			SnapshotPath:        snap,
			Name:                cfgs[i].Name,
			OutputDataDir:       cfgs[i].DataDir,
			PeerURLs:            []string{cfgs[i].PeerURL},
			InitialCluster:      strings.Join(initial, ","),
			InitialClusterToken: "restored",
		}
		if c.edit != nil {
			c.edit(&cfg)
		}
		require.NoError(t, lib.Restore(cfg))
		cfgs[i].InitialCluster = cfg.InitialCluster
	}
	return cfgs
}

// boot restores snap for n members and boots them.
func (c cluster) boot(t *testing.T, r *etcd.Release, snap string, n int) []*etcd.Member {
	t.Helper()
	members := make([]*etcd.Member, n)
	for i, cfg := range c.restored(t, r, snap, n) {
		members[i] = start(t, cfg)
	}
	ready(t, members...)
	return members
}

// asRoot is a cluster that is restored from an origin: authentication is on.
var asRoot = cluster{user: interop.Root, pass: interop.RootPassword}

// lib is the library under test.
var lib = snapshot.New()
