package interop

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Contents is what a server holds, in a form that can be compared.
type Contents struct {
	Revision        int64
	CompactRevision int64
	HashKV          uint32 // over all revisions from CompactRevision to Revision

	Keys      []Key // at Revision
	Compacted []Key // at CompactRevision
	Leases    map[int64]Lease
	Users     map[string][]string // roles
	Roles     map[string][]string // permissions
}

// Key is a key-value pair. A long value is replaced by its SHA-256.
type Key struct {
	Key, Value                           string
	CreateRevision, ModRevision, Version int64
	Lease                                int64
}

// Lease is a lease without its remaining time.
type Lease struct {
	TTL  int64 // seconds granted
	Keys []string
}

// Read reads everything that cli's first endpoint holds at rev, or at its
// latest revision if rev is 0. It needs root's credentials.
func Read(ctx context.Context, cli *clientv3.Client, rev int64) (c Contents, err error) {
	if rev == 0 {
		resp, err := cli.Get(ctx, "\x00")
		if err != nil {
			return c, fmt.Errorf("latest revision: %w", err)
		}
		rev = resp.Header.Revision
	}
	c.Revision = rev
	hash, err := cli.HashKV(ctx, cli.Endpoints()[0], rev)
	if err != nil {
		return c, fmt.Errorf("hash: %w", err)
	}
	c.HashKV, c.CompactRevision = hash.Hash, hash.CompactRevision
	if c.Keys, err = keysAt(ctx, cli, rev); err != nil {
		return c, err
	}
	if c.CompactRevision > 0 {
		if c.Compacted, err = keysAt(ctx, cli, c.CompactRevision); err != nil {
			return c, err
		}
	}
	if c.Leases, err = leases(ctx, cli); err != nil {
		return c, err
	}
	if err := c.readAuth(ctx, cli); err != nil {
		return c, err
	}
	return c, nil
}

func keysAt(ctx context.Context, cli *clientv3.Client, rev int64) ([]Key, error) {
	resp, err := cli.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(rev))
	if err != nil {
		return nil, fmt.Errorf("keys at revision %d: %w", rev, err)
	}
	keys := make([]Key, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		keys[i] = Key{
			string(kv.Key), short(kv.Value),
			kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease,
		}
	}
	return keys, nil
}

func short(value []byte) string {
	if len(value) <= 64 {
		return string(value)
	}
	return fmt.Sprintf("%d bytes, SHA-256 %x", len(value), sha256.Sum256(value))
}

func leases(ctx context.Context, cli *clientv3.Client) (map[int64]Lease, error) {
	resp, err := cli.Leases(ctx)
	if err != nil {
		return nil, fmt.Errorf("leases: %w", err)
	}
	all := map[int64]Lease{}
	for _, l := range resp.Leases {
		ttl, err := cli.TimeToLive(ctx, l.ID, clientv3.WithAttachedKeys())
		if err != nil {
			return nil, fmt.Errorf("lease %x: %w", l.ID, err)
		}
		lease := Lease{TTL: ttl.GrantedTTL}
		for _, k := range ttl.Keys {
			lease.Keys = append(lease.Keys, string(k))
		}
		slices.Sort(lease.Keys)
		all[int64(l.ID)] = lease
	}
	return all, nil
}

func (c *Contents) readAuth(ctx context.Context, cli *clientv3.Client) error {
	c.Users, c.Roles = map[string][]string{}, map[string][]string{}
	users, err := cli.UserList(ctx)
	if err != nil {
		return fmt.Errorf("users: %w", err)
	}
	for _, name := range users.Users {
		u, err := cli.UserGet(ctx, name)
		if err != nil {
			return fmt.Errorf("user %s: %w", name, err)
		}
		c.Users[name] = u.Roles
	}
	roles, err := cli.RoleList(ctx)
	if err != nil {
		return fmt.Errorf("roles: %w", err)
	}
	for _, name := range roles.Roles {
		r, err := cli.RoleGet(ctx, name)
		if err != nil {
			return fmt.Errorf("role %s: %w", name, err)
		}
		perms := []string{}
		if name == "root" {
			// root may do everything; servers from 3.6 on list that.
			r.Perm = nil
		}
		for _, p := range r.Perm {
			perms = append(perms, fmt.Sprintf("%s %q %q", p.PermType, p.Key, p.RangeEnd))
		}
		c.Roles[name] = perms
	}
	return nil
}
