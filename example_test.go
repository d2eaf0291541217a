package snapshot_test

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
)

// Save a snapshot of a member, and check the file before you rely on it.
func Example() {
	ctx, dir, etcd := context.Background(), tempDir(), startEtcd() // with three keys
	defer removeAll(dir)
	defer etcd.Stop()

	m := snapshot.New()
	cfg := clientv3.Config{Endpoints: []string{etcd.Endpoint()}} // exactly one member
	path := filepath.Join(dir, "backup.db")
	if err := m.Save(ctx, cfg, path); err != nil {
		log.Fatal(err)
	}
	status, err := m.Verify(ctx, path)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d keys at revision %d\n", status.TotalKey, status.Revision)
	// Output: 3 keys at revision 4
}

// Make a data directory for a cluster of one.
func ExampleV3Manager_Restore() {
	dir := tempDir()
	defer removeAll(dir)

	err := snapshot.New().Restore(snapshot.RestoreConfig{
		SnapshotPath:        snapshotIn(dir),
		Name:                "m1",
		OutputDataDir:       filepath.Join(dir, "m1.etcd"),
		PeerURLs:            []string{"http://10.0.0.1:2380"},
		InitialCluster:      "m1=http://10.0.0.1:2380",
		InitialClusterToken: "after-the-fire",
	})
	if err != nil {
		log.Fatal(err)
	}
	// etcd --name m1 --data-dir m1.etcd serves it now.
	for _, file := range filesIn(filepath.Join(dir, "m1.etcd")) {
		fmt.Println(file)
	}
	// Output:
	// member/snap/0000000000000001-0000000000000001.snap
	// member/snap/db
	// member/wal/0000000000000000-0000000000000000.wal
}

// Each of three hosts makes its own data directory, from the same snapshot and
// with the same InitialCluster and InitialClusterToken. Only Name, PeerURLs and
// the directory are its own. Here one process plays all three.
func ExampleV3Manager_Restore_threeMembers() {
	dir := tempDir()
	defer removeAll(dir)

	m := snapshot.New()
	path := snapshotIn(dir)
	for name, peerURL := range map[string]string{
		"m1": "http://10.0.0.1:2380",
		"m2": "http://10.0.0.2:2380",
		"m3": "http://10.0.0.3:2380",
	} {
		err := m.Restore(snapshot.RestoreConfig{
			SnapshotPath:        path,
			Name:                name,
			OutputDataDir:       filepath.Join(dir, name+".etcd"),
			PeerURLs:            []string{peerURL},
			InitialCluster:      "m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380,m3=http://10.0.0.3:2380",
			InitialClusterToken: "after-the-fire",
			// Let caches and watchers from before find out that time went back.
			RevisionBump:  1_000_000_000,
			MarkCompacted: true,
		})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("restored", name)
	}
	// Unordered output:
	// restored m1
	// restored m2
	// restored m3
}

// Save compressed, without a temporary file. Where SaveTo fails, what the
// writer holds is no snapshot and has to go.
func ExampleV3Manager_SaveTo_gzip() {
	ctx, dir, etcd := context.Background(), tempDir(), startEtcd()
	defer removeAll(dir)
	defer etcd.Stop()

	f, err := os.Create(filepath.Join(dir, "backup.db.gz"))
	if err != nil {
		log.Fatal(err)
	}
	zip := gzip.NewWriter(f)
	cfg := clientv3.Config{Endpoints: []string{etcd.Endpoint()}}
	saved, err := snapshot.New().SaveTo(ctx, cfg, zip)
	if err == nil {
		err = errors.Join(zip.Close(), f.Sync()) // SaveTo syncs and closes nothing
	}
	if err = errors.Join(err, f.Close()); err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
		log.Fatal(err)
	}
	fmt.Println("unpacks to what was saved:", sizeUnpacked(f.Name()) == saved.Size)
	// Output: unpacks to what was saved: true
}

// Restore a compressed snapshot, or one in an object store, without unpacking
// it to a file first. It is checked like a file before anything appears.
func ExampleV3Manager_RestoreFrom() {
	ctx, dir := context.Background(), tempDir()
	defer removeAll(dir)

	f, err := os.Open(gzipped(snapshotIn(dir)))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = f.Close() }() // only read from
	zip, err := gzip.NewReader(f)
	if err != nil {
		log.Fatal(err)
	}
	dataDir := filepath.Join(dir, "m1.etcd")
	err = snapshot.New().RestoreFrom(ctx, zip, snapshot.RestoreConfig{
		Name:           "m1",
		OutputDataDir:  dataDir,
		PeerURLs:       []string{"http://10.0.0.1:2380"},
		InitialCluster: "m1=http://10.0.0.1:2380",
	})
	if err != nil {
		log.Fatal(err)
	}
	status, err := snapshot.New().Status(filepath.Join(dataDir, "member", "snap", "db"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(status.TotalKey, "keys restored")
	// Output: 5000 keys restored
}

// Draw a progress bar. On a terminal, print "\r" in front of each line instead
// of "\n" behind it.
func ExampleWithProgress() {
	ctx, dir := context.Background(), tempDir()
	defer removeAll(dir)

	m := snapshot.New(snapshot.WithProgress(func(p snapshot.Progress) {
		if p.Total == 0 { // the length of a reader is unknown
			fmt.Printf("%s %s %d MB\n", p.Op, p.Phase, p.Done/1e6)
			return
		}
		percent := int(100 * p.Done / p.Total)
		fmt.Printf("%s %s [%-20s] %3d%%\n", p.Op, p.Phase, strings.Repeat("#", percent/5), percent)
	}))
	if _, err := m.Verify(ctx, snapshotIn(dir)); err != nil {
		log.Fatal(err)
	}
	// Output:
	// verify read [                    ]   0%
	// verify read [####                ]  20%
	// verify read [########            ]  40%
	// verify read [############        ]  60%
	// verify read [################    ]  80%
	// verify read [####################] 100%
}

// Ask the next member when one says nothing, or cannot be reached.
func ExampleV3Manager_Save_retry() {
	ctx, dir, etcd := context.Background(), tempDir(), startEtcd()
	defer removeAll(dir)
	defer etcd.Stop()
	silent := listenSilently()
	defer func() { _ = silent.Close() }()

	ctx, cancel := context.WithTimeout(ctx, time.Minute) // for all attempts
	defer cancel()
	m := snapshot.New(
		snapshot.WithConnectTimeout(500*time.Millisecond), // the default is 10 seconds
		snapshot.WithStallTimeout(5*time.Second),          // the default is a minute
	)
	members := []string{"http://" + silent.Addr().String(), etcd.Endpoint()}
	for i := 0; ; i = (i + 1) % len(members) {
		cfg := clientv3.Config{Endpoints: members[i : i+1]}
		err := m.Save(ctx, cfg, filepath.Join(dir, "backup.db"))
		if errors.Is(err, snapshot.ErrUnreachable) || errors.Is(err, snapshot.ErrStalled) {
			continue
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("saved from member", i)
		break
	}
	// Output: saved from member 1
}

// Tell a backup that is damaged from one that is not there.
func ExampleV3Manager_Verify() {
	ctx, dir := context.Background(), tempDir()
	defer removeAll(dir)

	sound := snapshotIn(dir)
	for _, path := range []string{
		sound,
		withoutTrailer(sound),
		cutInHalf(sound),
		withFlippedBit(sound),
		filepath.Join(dir, "missing.db"),
	} {
		_, err := snapshot.New().Verify(ctx, path)
		says := "sound"
		switch {
		case err == nil:
		case errors.Is(err, fs.ErrNotExist):
			says = "not there"
		case errors.Is(err, snapshot.ErrTruncated):
			says = "cut short"
		case errors.Is(err, snapshot.ErrNoTrailer):
			says = "a db file, or a stream that lost its digest"
		case errors.Is(err, snapshot.ErrChecksum), errors.Is(err, snapshot.ErrCorrupt):
			says = "damaged"
		default: // no permission, an I/O error, in use by a running etcd
			says = "cannot say: " + err.Error()
		}
		fmt.Printf("%s: %s\n", filepath.Base(path), says)
	}
	// Output:
	// snapshot.db: sound
	// no-trailer.db: a db file, or a stream that lost its digest
	// half.db: cut short
	// flipped.db: damaged
	// missing.db: not there
}

// What the examples stand on.

func tempDir() string {
	dir, err := os.MkdirTemp("", "snapshot-example-*")
	if err != nil {
		log.Fatal(err)
	}
	return dir
}

func removeAll(dir string) {
	if err := os.RemoveAll(dir); err != nil {
		log.Fatal(err)
	}
}

// startEtcd starts a member with three keys, each of one revision.
func startEtcd() *snaptest.Etcd {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	etcd, err := snaptest.Run(ctx, snaptest.Config{})
	if err != nil {
		log.Fatal(err)
	}
	putFruit(ctx, etcd)
	return etcd
}

func putFruit(ctx context.Context, etcd *snaptest.Etcd) {
	for _, key := range []string{"apple", "banana", "cherry"} {
		if _, err := etcd.Client().Put(ctx, key, "fruit"); err != nil {
			log.Fatal(err)
		}
	}
}

// snapshotIn writes a snapshot of 5,000 keys, some 4 MB.
func snapshotIn(dir string) string {
	path := filepath.Join(dir, "snapshot.db")
	if err := snaptest.NewDB().Large(5000, 700).WriteFile(path, true); err != nil {
		log.Fatal(err)
	}
	return path
}

// filesIn lists the files below dir.
func filesIn(dir string) (files []string) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		files = append(files, filepath.ToSlash(rel))
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	return files
}

// derive writes a changed copy of a file beside it.
func derive(path, name string, change func([]byte) []byte) string {
	b, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	derived := filepath.Join(filepath.Dir(path), name)
	if err := os.WriteFile(derived, change(b), 0o600); err != nil {
		log.Fatal(err)
	}
	return derived
}

func withoutTrailer(path string) string {
	return derive(path, "no-trailer.db", func(b []byte) []byte { return b[:len(b)-32] })
}

func cutInHalf(path string) string {
	return derive(path, "half.db", func(b []byte) []byte { return b[:len(b)/2] })
}

func withFlippedBit(path string) string {
	return derive(path, "flipped.db", func(b []byte) []byte {
		b[len(b)/2] ^= 1
		return b
	})
}

func gzipped(path string) string {
	return derive(path, "snapshot.db.gz", func(b []byte) []byte {
		var zipped strings.Builder
		zip := gzip.NewWriter(&zipped)
		_, err := zip.Write(b)
		if err = errors.Join(err, zip.Close()); err != nil {
			log.Fatal(err)
		}
		return []byte(zipped.String())
	})
}

func sizeUnpacked(path string) int64 {
	f, err := os.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = f.Close() }() // only read from
	zip, err := gzip.NewReader(f)
	if err != nil {
		log.Fatal(err)
	}
	n, err := io.Copy(io.Discard, zip)
	if err != nil {
		log.Fatal(err)
	}
	return n
}

// listenSilently takes connections and never says anything.
func listenSilently() net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	return l
}
