package interop

import (
	"context"
	"errors"
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// The users that Fill creates. Reader may only read below "app/".
const (
	Root, RootPassword     = "root", "root's secret"
	Reader, ReaderPassword = "reader", "reader's secret"
)

// The times to live that Fill gives its two leases, in seconds. Only the first
// has keys attached, "lease/a" and "lease/b".
const (
	LeaseTTL     = 3600
	IdleLeaseTTL = 86400
)

// Plan is how much Fill writes.
type Plan struct {
	Keys     int   // keys below "app/", at least 20
	Rewrites int   // revisions of the key "app/hot"
	Values   []int // sizes in bytes of the values below "big/"
}

// Fill writes to an empty etcd everything that a snapshot may hold: keys with many
// revisions, transactions, deletions, keys created again after one, a compaction in
// the middle of all that, values over a page, odd keys and values, leases with and
// without keys, users and roles. Authentication is on when it returns. For an alarm
// use [Overfill].
func Fill(ctx context.Context, cli *clientv3.Client, p Plan) error {
	w := &writer{ctx: ctx, cli: cli}
	for i := range p.Keys {
		w.put(key(i), "first")
	}
	for i := range p.Rewrites / 2 {
		w.put("app/hot", fmt.Sprint(i))
	}
	w.delete(key(p.Keys/4), key(p.Keys/2))
	w.put(key(p.Keys/4), "made again")
	half := w.rev
	w.txn(
		clientv3.OpPut(key(0), "together"),
		clientv3.OpPut(key(1), "together"),
		clientv3.OpDelete(key(2)),
		clientv3.OpPut("app/new", "together"),
	)
	for i := range p.Rewrites / 2 {
		w.put("app/hot", fmt.Sprint(i))
	}
	w.compact(half)

	w.delete(key(3), "")
	w.put(key(3), "made again")
	w.put(key(4), "second")
	w.delete(key(4), "")
	w.delete(key(p.Keys-5), key(p.Keys))
	for i, size := range p.Values {
		w.put(fmt.Sprintf("big/%d", i), strings.Repeat(fmt.Sprintf("%08d", i), size/8))
	}
	w.put("odd/empty value", "")
	w.put("odd/\x00\xff\xfe", "\x00\xff")
	w.put("odd/"+strings.Repeat("long", 300), "a key of more than a quarter page")

	lease := w.grant(LeaseTTL)
	w.put("lease/a", "1", clientv3.WithLease(lease))
	w.put("lease/b", "2", clientv3.WithLease(lease))
	w.grant(IdleLeaseTTL)

	w.do("add role", func() error { _, err := cli.RoleAdd(ctx, "root"); return err })
	w.do("add role", func() error { _, err := cli.RoleAdd(ctx, "app-reader"); return err })
	w.do("grant permission", func() error {
		_, err := cli.RoleGrantPermission(ctx, "app-reader", "app/",
			clientv3.GetPrefixRangeEnd("app/"), clientv3.PermissionType(clientv3.PermRead))
		return err
	})
	for _, u := range [][3]string{{Root, RootPassword, "root"}, {Reader, ReaderPassword, "app-reader"}} {
		w.do("add user", func() error { _, err := cli.UserAdd(ctx, u[0], u[1]); return err })
		w.do("grant role", func() error { _, err := cli.UserGrantRole(ctx, u[0], u[2]); return err })
	}
	w.do("enable authentication", func() error { _, err := cli.AuthEnable(ctx); return err })
	return w.err
}

// Overfill writes values of size bytes below "fill/" until the server is over
// its quota and has raised the alarm NOSPACE.
func Overfill(ctx context.Context, cli *clientv3.Client, size int) error {
	value := strings.Repeat("x", size)
	for i := 0; ; i++ {
		_, err := cli.Put(ctx, fmt.Sprintf("fill/%06d", i), value)
		if errors.Is(err, rpctypes.ErrNoSpace) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("overfill: %w", err)
		}
	}
}

func key(i int) string { return fmt.Sprintf("app/%05d", i) }

// writer keeps the first error and writes nothing after it.
type writer struct {
	ctx context.Context
	cli *clientv3.Client
	rev int64
	err error
}

func (w *writer) do(what string, f func() error) {
	if w.err != nil {
		return
	}
	if err := f(); err != nil {
		w.err = fmt.Errorf("fill: %s: %w", what, err)
	}
}

func (w *writer) put(key, value string, opts ...clientv3.OpOption) {
	w.txn(clientv3.OpPut(key, value, opts...))
}

// delete deletes key, or all keys from it up to end.
func (w *writer) delete(key, end string) {
	var opts []clientv3.OpOption
	if end != "" {
		opts = append(opts, clientv3.WithRange(end))
	}
	w.txn(clientv3.OpDelete(key, opts...))
}

func (w *writer) txn(ops ...clientv3.Op) {
	w.do("write", func() error {
		resp, err := w.cli.Txn(w.ctx).Then(ops...).Commit()
		if err == nil {
			w.rev = resp.Header.Revision
		}
		return err
	})
}

func (w *writer) compact(rev int64) {
	w.do("compact", func() error {
		_, err := w.cli.Compact(w.ctx, rev, clientv3.WithCompactPhysical())
		return err
	})
}

func (w *writer) grant(ttl int64) (id clientv3.LeaseID) {
	w.do("grant lease", func() error {
		resp, err := w.cli.Grant(w.ctx, ttl)
		if err == nil {
			id = resp.ID
		}
		return err
	})
	return id
}

// RaiseAlarm raises an alarm in the name of cli's first endpoint.
func RaiseAlarm(ctx context.Context, cli *clientv3.Client, kind pb.AlarmType) error {
	st, err := cli.Status(ctx, cli.Endpoints()[0])
	if err != nil {
		return fmt.Errorf("raise alarm: %w", err)
	}
	_, err = pb.NewMaintenanceClient(cli.ActiveConnection()).Alarm(ctx, &pb.AlarmRequest{
		Action:   pb.AlarmRequest_ACTIVATE,
		MemberID: st.Header.MemberId,
		Alarm:    kind,
	})
	if err != nil {
		return fmt.Errorf("raise alarm: %w", err)
	}
	return nil
}
