package snapshot_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"path/filepath"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
)

// Assert in an integration test what was written, all of it at one moment.
func ExampleV3Manager_Open() {
	ctx, dir, etcd := context.Background(), tempDir(), startEtcd() // with three keys
	defer removeAll(dir)
	defer etcd.Stop()

	m := snapshot.New()
	path := filepath.Join(dir, "backup.db")
	if err := m.Save(ctx, clientv3.Config{Endpoints: []string{etcd.Endpoint()}}, path); err != nil {
		log.Fatal(err)
	}
	r, err := m.Open(ctx, path)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = r.Close() }() // only read from

	resp, err := r.KV().Txn(ctx).If(
		clientv3.Compare(clientv3.Value("apple"), "=", "fruit"),
		clientv3.Compare(clientv3.Version("banana"), "=", 1),   // written once
		clientv3.Compare(clientv3.CreateRevision("d"), "=", 0), // never
	).Commit()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("as expected:", resp.Succeeded)
	// Output: as expected: true
}

// Restore one prefix into a cluster that is running. Leases are granted anew, with
// their full time.
func ExampleReader_Range_restorePrefix() {
	ctx, dir, etcd := context.Background(), tempDir(), startEtcd()
	defer removeAll(dir)
	defer etcd.Stop()
	cli := etcd.Client()

	r, err := snapshot.New().Open(ctx, snapshotOfServices(dir))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = r.Close() }()

	ttl := make(map[clientv3.LeaseID]int64)
	for _, lease := range r.Info().Leases {
		ttl[lease.ID] = lease.TTL
	}
	granted := make(map[clientv3.LeaseID]clientv3.LeaseID) // by the old one
	for kv, err := range r.Range(ctx, "/services/", clientv3.WithPrefix()) {
		if err != nil {
			log.Fatal(err)
		}
		old := clientv3.LeaseID(kv.Lease)
		if old != 0 && granted[old] == 0 {
			lease, err := cli.Grant(ctx, ttl[old])
			if err != nil {
				log.Fatal(err)
			}
			granted[old] = lease.ID
		}
		if _, err := cli.Put(ctx, string(kv.Key), string(kv.Value), clientv3.WithLease(granted[old])); err != nil {
			log.Fatal(err)
		}
	}
	for _, lease := range granted {
		l, err := cli.TimeToLive(ctx, lease, clientv3.WithAttachedKeys())
		if err != nil {
			log.Fatal(err)
		}
		slices.SortFunc(l.Keys, bytes.Compare)
		fmt.Printf("%d s: %s\n", l.GrantedTTL, l.Keys)
	}
	resp, err := cli.Get(ctx, "/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Count, "keys")
	// Output:
	// 600 s: [/services/api /services/web]
	// 3 keys
}

// List what changed between two snapshots.
func ExampleDiff() {
	ctx, dir := context.Background(), tempDir()
	defer removeAll(dir)

	m := snapshot.New()
	monday, tuesday := snapshotsOfTwoDays(dir)
	before, err := m.Open(ctx, monday)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = before.Close() }()
	after, err := m.Open(ctx, tuesday)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = after.Close() }()

	from, to := snapshot.At{Reader: before}, snapshot.At{Reader: after}
	for c, err := range snapshot.Diff(ctx, from, to, "/config/", clientv3.WithPrefix()) {
		switch {
		case err != nil:
			log.Fatal(err)
		case c.Before == nil:
			fmt.Printf("+ %s = %s\n", c.Key, c.After.Value)
		case c.After == nil:
			fmt.Printf("- %s = %s\n", c.Key, c.Before.Value)
		default:
			fmt.Printf("~ %s = %s, was %s\n", c.Key, c.After.Value, c.Before.Value)
		}
	}
	// Output:
	// ~ /config/level = debug, was info
	// + /config/limit = 100
	// - /config/proxy = 10.0.0.9
}

// Write all live keys out as an archive, one file a key.
func ExampleReader_Range_tar() {
	ctx, dir := context.Background(), tempDir()
	defer removeAll(dir)

	r, err := snapshot.New().Open(ctx, snapshotOfServices(dir))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = r.Close() }()

	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for kv, err := range r.Range(ctx, "", clientv3.WithPrefix()) { // all keys
		if err != nil {
			log.Fatal(err)
		}
		err := w.WriteHeader(&tar.Header{Name: string(kv.Key), Size: int64(len(kv.Value)), Mode: 0o600})
		if err != nil {
			log.Fatal(err)
		}
		if _, err := w.Write(kv.Value); err != nil {
			log.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}
	printArchive(&archive)
	// Output:
	// /config/level: info
	// /services/api: 10.0.0.2
	// /services/db: 10.0.0.3
	// /services/web: 10.0.0.1
}

// Read a key at an earlier revision to undo a deletion.
func ExampleReader_KV() {
	ctx, dir := context.Background(), tempDir()
	defer removeAll(dir)

	_, tuesday := snapshotsOfTwoDays(dir) // in which /config/proxy is deleted
	r, err := snapshot.New().Open(ctx, tuesday)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = r.Close() }()

	var deleted int64 // the revision that deleted it last
	for record, err := range r.Records(ctx, 0) {
		if err != nil {
			log.Fatal(err)
		}
		if record.Tombstone && string(record.KeyValue.Key) == "/config/proxy" {
			deleted = record.Revision.Main
		}
	}
	resp, err := r.KV().Get(ctx, "/config/proxy", clientv3.WithRev(deleted-1))
	if errors.Is(err, snapshot.ErrCompacted) {
		log.Fatal("too late: look into an older snapshot")
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("deleted at revision %d, it was %s\n", deleted, resp.Kvs[0].Value)
	// Output: deleted at revision 6, it was 10.0.0.9
}

// Match backups against all members. A backup of another cluster does not match, nor
// does one that holds what a member lost.
func ExampleV3Manager_Match() {
	ctx, dir, cluster := context.Background(), tempDir(), startCluster() // of three members
	defer removeAll(dir)
	defer snaptest.StopAll(cluster)

	m := snapshot.New()
	own := filepath.Join(dir, "backup.db")
	if err := m.Save(ctx, clientv3.Config{Endpoints: []string{cluster[0].Endpoint()}}, own); err != nil {
		log.Fatal(err)
	}
	// The members go on meanwhile.
	if _, err := cluster[0].Client().Put(ctx, "banana", "peeled"); err != nil {
		log.Fatal(err)
	}

	var all clientv3.Config
	for _, member := range cluster {
		all.Endpoints = append(all.Endpoints, member.Endpoint())
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute) // for members that lag behind
	defer cancel()
	for _, path := range []string{own, snapshotOfServices(dir)} {
		err := m.Match(ctx, all, path)
		says := "equals what all members hold"
		switch {
		case err == nil:
		case errors.Is(err, snapshot.ErrMismatch): // the error names the members
			says = "differs"
		case errors.Is(err, snapshot.ErrCompacted):
			says = "too old to compare"
		default:
			says = "cannot say: " + err.Error()
		}
		fmt.Printf("%s: %s\n", filepath.Base(path), says)
	}
	// Output:
	// backup.db: equals what all members hold
	// services.db: differs
}

// What the examples stand on.

// startCluster starts three members with three keys, each of one revision.
func startCluster() []*snaptest.Etcd {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cluster, err := snaptest.RunCluster(ctx, []snaptest.Member{{Name: "m1"}, {Name: "m2"}, {Name: "m3"}})
	if err != nil {
		log.Fatal(err)
	}
	putFruit(ctx, cluster[0])
	return cluster
}

// snapshotOfServices writes a snapshot with two keys of one lease, and two without.
func snapshotOfServices(dir string) string {
	path := filepath.Join(dir, "services.db")
	err := snaptest.NewDB().
		Lease(7, 600).
		Put("/config/level", "info").
		PutLease("/services/web", "10.0.0.1", 7).
		PutLease("/services/api", "10.0.0.2", 7).
		Put("/services/db", "10.0.0.3").
		WriteFile(path, true)
	if err != nil {
		log.Fatal(err)
	}
	return path
}

// snapshotsOfTwoDays writes two snapshots of one cluster.
func snapshotsOfTwoDays(dir string) (monday, tuesday string) {
	monday, tuesday = filepath.Join(dir, "monday.db"), filepath.Join(dir, "tuesday.db")
	db := snaptest.NewDB().
		Put("/config/level", "info").
		Put("/config/proxy", "10.0.0.9").
		Put("/config/zone", "a")
	err := db.WriteFile(monday, true)
	db.Put("/config/level", "debug").
		Delete("/config/proxy").
		Put("/config/limit", "100").
		Put("/services/web", "10.0.0.1")
	if err = errors.Join(err, db.WriteFile(tuesday, true)); err != nil {
		log.Fatal(err)
	}
	return monday, tuesday
}

// printArchive lists the files in a tar archive with what is in them.
func printArchive(r io.Reader) {
	archive := tar.NewReader(r)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			log.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s\n", header.Name, content)
	}
}
