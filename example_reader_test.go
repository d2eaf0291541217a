package snapshot_test

import (
	"context"
	"fmt"
	"log"
	"path/filepath"

	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
)

// deployed is a snapshot of a cluster in which a prefix was deleted by accident.
func deployed(dir string) string {
	path := filepath.Join(dir, "backup.db")
	db := snaptest.NewDB().StorageVersion("3.7.0").
		Put("/app/config", "v1").Put("/app/secret", "s3cret").Put("/db/config", "v1").
		Put("/app/config", "v2").Delete("/app/config").Delete("/app/secret")
	if err := db.WriteFile(path, true); err != nil {
		log.Fatal(err)
	}
	return path
}

// An integration test asserts what was written, with the client API that the program
// under test uses.
func ExampleReader_KV() {
	dir := tempDir()
	defer removeAll(dir)
	path := deployed(dir)

	ctx := context.Background()
	r, err := snapshot.New().Open(ctx, path)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	resp, err := r.KV().Get(ctx, "/", clientv3.WithPrefix())
	if err != nil {
		log.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		fmt.Printf("%s = %s, version %d\n", kv.Key, kv.Value, kv.Version)
	}
	// Output:
	// /db/config = v1, version 1
}

// What was deleted since an earlier revision, and what it was.
func ExampleDiff() {
	dir := tempDir()
	defer removeAll(dir)
	path := deployed(dir)

	ctx := context.Background()
	r, err := snapshot.New().Open(ctx, path)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	before := snapshot.At{Reader: r, Revision: r.Info().Revision - 2}
	for change, err := range snapshot.Diff(ctx, before, snapshot.At{Reader: r}, "/app/", clientv3.WithPrefix()) {
		if err != nil {
			log.Fatal(err)
		}
		if change.After == nil {
			fmt.Printf("%s was deleted; it was %q\n", change.Key, change.Before.Value)
		}
	}
	// Output:
	// /app/config was deleted; it was "v2"
	// /app/secret was deleted; it was "s3cret"
}

// The history of a key, out of every record of the snapshot.
func ExampleReader_Records() {
	dir := tempDir()
	defer removeAll(dir)
	path := deployed(dir)

	ctx := context.Background()
	r, err := snapshot.New().Open(ctx, path)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	for record, err := range r.Records(ctx, 0) {
		if err != nil {
			log.Fatal(err)
		}
		if string(record.KeyValue.Key) != "/app/config" {
			continue
		}
		if record.Tombstone {
			fmt.Printf("revision %d: deleted\n", record.Revision.Main)
		} else {
			fmt.Printf("revision %d: %s\n", record.Revision.Main, record.KeyValue.Value)
		}
	}
	// Output:
	// revision 2: v1
	// revision 5: v2
	// revision 6: deleted
}

// Before a backup is relied on, it is matched with all members of the cluster.
func ExampleV3Manager_Match() {
	e := startEtcd()
	defer e.Stop()
	dir := tempDir()
	defer removeAll(dir)
	endpoint, path := e.Endpoint(), filepath.Join(dir, "backup.db")

	ctx, m := context.Background(), snapshot.New()
	if err := m.Save(ctx, clientv3.Config{Endpoints: []string{endpoint}}, path); err != nil {
		log.Fatal(err)
	}
	all := clientv3.Config{Endpoints: []string{endpoint}} // every member of the cluster
	if err := m.Match(ctx, all, path); err != nil {
		log.Fatal(err)
	}
	fmt.Println("equal")
	// Output: equal
}
