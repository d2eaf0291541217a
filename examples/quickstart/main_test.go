package main

import (
	"bytes"
	"context"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
)

func TestRun(t *testing.T) {
	snaptest.NoLeaks(t)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	var out bytes.Buffer
	require.NoError(t, run(context.Background(), &out))
	require.Regexp(t, regexp.MustCompile(`^An etcd is running at http://127\.0\.0\.1:\d+ with 282 keys\.
Saved in \S+, SHA-256 checked on the way\. The snapshot holds:

  hash              [0-9a-f]{8}
  revision          353
  keys              282
  size              \d+ bytes
  storage version   (3\.7\.0|not set yet)

Verified: checksum, structure and every record\.
Restored in \S+\. The old etcd is stopped, a new one boots from the restored directory\.
Compared: 282 keys with value, versions and revisions, 1 of them on a lease, the revision \(353\), the user and the role\. They are equal\.
$`), out.String())
	require.Empty(t, snaptest.TreeList(t, tmp))
}

// cancelAt cancels when a line that contains text is printed, as Ctrl-C might.
type cancelAt struct {
	text   string
	cancel context.CancelFunc
}

func (c *cancelAt) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(c.text)) {
		c.cancel()
	}
	return len(p), nil
}

func TestRunInterrupted(t *testing.T) {
	snaptest.NoLeaks(t)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	for _, text := range []string{"", "is running", "Saved", "Verified", "Restored"} {
		ctx, cancel := context.WithCancel(context.Background())
		if text == "" {
			cancel()
		}
		require.ErrorIs(t, run(ctx, &cancelAt{text, cancel}), context.Canceled, text)
		require.Empty(t, snaptest.TreeList(t, tmp), text)
		cancel()
	}
}

func TestCompare(t *testing.T) {
	some := func() content {
		return content{
			revision: 7,
			keys:     []*mvccpb.KeyValue{{Key: []byte("a"), Value: []byte("1"), ModRevision: 7, Lease: 5}},
			leases:   map[clientv3.LeaseID]int64{5: 60},
			roles:    []string{"r"},
			perms:    "p",
		}
	}
	status := snapshot.Status{Revision: 7, TotalKey: 1}
	require.NoError(t, compare(some(), some(), status))
	for want, change := range map[string]func(*content, *snapshot.Status){
		"revision of the snapshot: got 8, want 7":  func(_ *content, s *snapshot.Status) { s.Revision++ },
		"keys in the snapshot: got 2, want 1":      func(_ *content, s *snapshot.Status) { s.TotalKey++ },
		"revision: got 8, want 7":                  func(c *content, _ *snapshot.Status) { c.revision++ },
		"number of keys: got 0, want 1":            func(c *content, _ *snapshot.Status) { c.keys = nil },
		`key "a": got`:                             func(c *content, _ *snapshot.Status) { c.keys[0].ModRevision++ },
		"number of leases: got 0, want 1":          func(c *content, _ *snapshot.Status) { c.leases = nil },
		"time to live of lease 5: got 61, want 60": func(c *content, _ *snapshot.Status) { c.leases[5]++ },
		"roles of user backup: got [], want [r]":   func(c *content, _ *snapshot.Status) { c.roles = nil },
		"permissions of role reader: got , want p": func(c *content, _ *snapshot.Status) { c.perms = "" },
	} {
		after, s := some(), status
		change(&after, &s)
		require.ErrorContains(t, compare(some(), after, s), want)
	}
}
