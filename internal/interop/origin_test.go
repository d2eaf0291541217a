package interop_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot/internal/interop"
	"etcd.example/snapshot/internal/interop/etcd"
)

// origin is a server that was filled and saved twice. It runs until the end of all
// tests.
type origin struct {
	once   sync.Once
	err    error
	member *etcd.Member

	plain    string           // snapshot of contents
	contents interop.Contents // from the server

	alarmed  string // snapshot taken later, over the quota, NOSPACE raised
	memberID uint64
}

var origins = map[string]*origin{}

func init() {
	for _, r := range etcd.Releases() {
		origins[r.Minor] = &origin{}
	}
}

// originOf returns the origin of a release. The first call creates it.
func originOf(t *testing.T, r *etcd.Release) *origin {
	t.Helper()
	need(t, r)
	o := origins[r.Minor]
	o.once.Do(func() { o.err = o.make(r) })
	require.NoError(t, o.err)
	return o
}

func (o *origin) make(r *etcd.Release) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	dir := filepath.Join(scratch, r.Minor)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	port, err := etcd.FreePort()
	if err != nil {
		return err
	}
	o.member, err = etcd.Start(ctx, etcd.Config{
		Release: r,
		Name:    "origin",
		DataDir: filepath.Join(dir, "data"),
		PeerURL: fmt.Sprintf("http://127.0.0.1:%d", port),
		Flags:   []string{"--quota-backend-bytes", fmt.Sprint(quota)},
	})
	if err != nil {
		return err
	}
	if err := o.member.Ready(ctx); err != nil {
		return err
	}
	if _, err := o.member.ClusterVersion(ctx); err != nil {
		return err
	}
	err = with(ctx, o.member, func(cli *clientv3.Client) error {
		return interop.Fill(ctx, cli, interop.Plan{
			Keys:     400,
			Rewrites: 150,
			Values:   []int{4 << 10, 5000, 70_000, 1 << 20},
		})
	})
	if err != nil {
		return err
	}
	o.member.Username, o.member.Password = interop.Root, interop.RootPassword
	return with(ctx, o.member, func(cli *clientv3.Client) error {
		if o.contents, err = interop.Read(ctx, cli, 0); err != nil {
			return err
		}
		o.plain = filepath.Join(dir, "plain.db")
		if err := lib.Save(ctx, o.member.ClientConfig(), o.plain); err != nil {
			return err
		}
		if err := interop.Overfill(ctx, cli, 512<<10); err != nil {
			return err
		}
		list, err := cli.AlarmList(ctx)
		if err != nil {
			return err
		}
		if len(list.Alarms) != 1 {
			return fmt.Errorf("want one alarm, got %v", list.Alarms)
		}
		o.memberID = list.Alarms[0].MemberID
		o.alarmed = filepath.Join(dir, "alarmed.db")
		return lib.Save(ctx, o.member.ClientConfig(), o.alarmed)
	})
}

func (o *origin) stop() {
	if o.member != nil {
		o.member.Stop()
	}
}

func with(ctx context.Context, m *etcd.Member, f func(*clientv3.Client) error) error {
	cli, err := m.Client(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = cli.Close() }()
	return f(cli)
}
