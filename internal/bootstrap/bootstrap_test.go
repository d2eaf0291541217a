package bootstrap_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.uber.org/zap"

	"etcd.example/snapshot/internal/bootstrap"
)

// layout is a cluster as a user writes it down, and one of its members.
type layout struct {
	title, name, token, cluster string
}

var layouts = []layout{
	{"one member", "default", "etcd-cluster", "default=http://localhost:2380"},
	{"no token", "m", "", "m=http://10.0.0.1:2380"},
	{
		"three members", "infra1", "tok",
		"infra0=http://10.0.0.10:2380,infra1=http://10.0.0.11:2380,infra2=http://10.0.0.12:2380",
	},
	{
		"several URLs a member", "b", "tok-2",
		"b=https://b.example:2380,b=http://[::1]:2382,a=http://a.example:2380,a=unix://a.sock:1,c=https://c:1,c=https://c:2,c=https://c:3",
	},
	{
		"five members with odd names", `"q\`, "<&>",
		`"q\=http://h1:1,ü näme=http://h2:1,a/b=http://h3:1,<b>&=http://h4:1,` + "\xff\x01=http://h5:1",
	},
}

func (l layout) urls(t *testing.T) types.URLsMap {
	t.Helper()
	urls, err := types.NewURLsMap(l.cluster)
	require.NoError(t, err)
	return urls
}

func (l layout) ours(t *testing.T) *bootstrap.Cluster {
	t.Helper()
	c, err := bootstrap.New(l.name, l.token, l.urls(t))
	require.NoError(t, err)
	return c
}

func (l layout) etcds(t *testing.T) *membership.RaftCluster {
	t.Helper()
	rc, err := membership.NewClusterFromURLsMap(zap.NewNop(), l.token, l.urls(t))
	require.NoError(t, err)
	return rc
}

// membersOf returns the members of etcd's cluster in our type.
func membersOf(rc *membership.RaftCluster) []bootstrap.Member {
	var ms []bootstrap.Member
	for _, m := range rc.Members() {
		ours := bootstrap.Member{ID: m.ID, Name: m.Name}
		ours.PeerURLs = m.PeerURLs
		ms = append(ms, ours)
	}
	return ms
}

func eachLayout(t *testing.T, test func(t *testing.T, l layout)) {
	for _, l := range layouts {
		t.Run(l.title, func(t *testing.T) { test(t, l) })
	}
}

func TestIDsAreEtcds(t *testing.T) {
	eachLayout(t, func(t *testing.T, l layout) {
		ours, etcds := l.ours(t), l.etcds(t)
		require.Equal(t, etcds.ID(), ours.ClusterID())
		require.Equal(t, etcds.MemberByName(l.name).ID, ours.LocalID())
		require.Equal(t, membersOf(etcds), ours.Members())
		require.EqualValues(t, len(ours.Members()), ours.Index())
		require.EqualValues(t, 1, ours.Term())
	})
}

// Nothing that a caller does with the result of Members reaches the cluster.
func TestMembersAreCopies(t *testing.T) {
	l := layouts[2]
	c := l.ours(t)
	got := c.Members()
	got[0].Name, got[0].PeerURLs[0] = "other", "http://other:1"
	require.Equal(t, membersOf(l.etcds(t)), c.Members())
}

func TestNewErrors(t *testing.T) {
	for _, tt := range []struct{ name, cluster, want string }{
		{"x", "a=http://h:1", `no member has the name "x"`},
		{"a", "", `no member has the name "a"`},
		// Ids are made from the URLs' concatenation, which is the same here.
		{"a", "a=unix://1,a=unix://2,b=unix://1unix://2", `members "a" and "b" have the same id`},
	} {
		t.Run(tt.cluster, func(t *testing.T) {
			urls, err := types.NewURLsMap(tt.cluster)
			require.NoError(t, err)
			c, err := bootstrap.New(tt.name, "tok", urls)
			require.ErrorContains(t, err, tt.want)
			require.Nil(t, c)
		})
	}
}

func ExampleNew() {
	urls, _ := types.NewURLsMap("m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380")
	c, _ := bootstrap.New("m1", "etcd-cluster", urls)
	fmt.Println("cluster", c.ClusterID(), "member", c.LocalID())
	for _, m := range c.Members() {
		fmt.Println(m.ID, m.Name, m.PeerURLs)
	}
	// Output:
	// cluster 8ba396abbfd67d09 member 3ebc01aec68d6d70
	// 3ebc01aec68d6d70 m1 [http://10.0.0.1:2380]
	// ee274cacce804b21 m2 [http://10.0.0.2:2380]
}
