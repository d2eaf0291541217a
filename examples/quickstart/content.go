package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"etcd.example/snapshot"
)

const (
	user = "backup"
	role = "reader"
)

// write writes keys that it updates, deletes and puts again, a lease, a user and a
// role.
func write(ctx context.Context, c *clientv3.Client) error {
	for i := range 300 {
		if _, err := c.Put(ctx, serviceKey(i), fmt.Sprintf("10.0.0.%d:80", i%250)); err != nil {
			return err
		}
	}
	for i := range 30 {
		if _, err := c.Put(ctx, serviceKey(i*3), fmt.Sprintf("10.0.1.%d:80", i)); err != nil {
			return err
		}
	}
	for i := range 20 {
		if _, err := c.Delete(ctx, serviceKey(i*7)); err != nil {
			return err
		}
	}
	if _, err := c.Put(ctx, serviceKey(7), "10.0.2.7:80"); err != nil {
		return err
	}
	lease, err := c.Grant(ctx, 3600)
	if err != nil {
		return err
	}
	if _, err := c.Put(ctx, "lock/leader", "m1", clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	if _, err := c.RoleAdd(ctx, role); err != nil {
		return err
	}
	services := clientv3.GetPrefixRangeEnd("service/")
	if _, err := c.RoleGrantPermission(ctx, role, "service/", services, clientv3.PermissionType(clientv3.PermRead)); err != nil {
		return err
	}
	if _, err := c.UserAdd(ctx, user, "quickstart"); err != nil {
		return err
	}
	_, err = c.UserGrantRole(ctx, user, role)
	return err
}

func serviceKey(i int) string { return fmt.Sprintf("service/%03d", i) }

// content is what an etcd holds.
type content struct {
	revision int64
	keys     []*mvccpb.KeyValue
	leases   map[clientv3.LeaseID]int64 // time to live in seconds
	roles    []string                   // of the user
	perms    string                     // of the role
}

func read(ctx context.Context, c *clientv3.Client) (content, error) {
	resp, err := c.Get(ctx, "", clientv3.WithPrefix())
	if err != nil {
		return content{}, err
	}
	got := content{revision: resp.Header.Revision, keys: resp.Kvs, leases: make(map[clientv3.LeaseID]int64)}
	leases, err := c.Leases(ctx)
	if err != nil {
		return content{}, err
	}
	for _, l := range leases.Leases {
		ttl, err := c.TimeToLive(ctx, l.ID)
		if err != nil {
			return content{}, err
		}
		got.leases[l.ID] = ttl.GrantedTTL
	}
	u, err := c.UserGet(ctx, user)
	if err != nil {
		return content{}, err
	}
	got.roles = u.Roles
	r, err := c.RoleGet(ctx, role)
	if err != nil {
		return content{}, err
	}
	for _, p := range r.Perm {
		got.perms += fmt.Sprintf("%v %q %q;", p.PermType, p.Key, p.RangeEnd)
	}
	return got, nil
}

func (c content) leased() (n int) {
	for _, kv := range c.keys {
		if kv.Lease != 0 {
			n++
		}
	}
	return n
}

// compare returns an error with every difference, or nil.
func compare(before, after content, s snapshot.Status) error {
	var errs []error
	differs := func(what string, got, want any) {
		errs = append(errs, fmt.Errorf("%s: got %v, want %v", what, got, want))
	}
	if s.Revision != before.revision {
		differs("revision of the snapshot", s.Revision, before.revision)
	}
	if s.TotalKey != len(before.keys) {
		differs("keys in the snapshot", s.TotalKey, len(before.keys))
	}
	if after.revision != before.revision {
		differs("revision", after.revision, before.revision)
	}
	if len(after.keys) != len(before.keys) {
		differs("number of keys", len(after.keys), len(before.keys))
	}
	for i := range min(len(before.keys), len(after.keys)) {
		if !proto.Equal(before.keys[i], after.keys[i]) {
			differs(fmt.Sprintf("key %q", before.keys[i].Key), after.keys[i], before.keys[i])
			break // one is enough
		}
	}
	if len(after.leases) != len(before.leases) {
		differs("number of leases", len(after.leases), len(before.leases))
	}
	for id, ttl := range before.leases {
		if after.leases[id] != ttl {
			differs(fmt.Sprintf("time to live of lease %x", id), after.leases[id], ttl)
		}
	}
	if !slices.Equal(after.roles, before.roles) {
		differs("roles of user "+user, after.roles, before.roles)
	}
	if after.perms != before.perms {
		differs("permissions of role "+role, after.perms, before.perms)
	}
	return errors.Join(errs...)
}
