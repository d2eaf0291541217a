// Command backup keeps compressed backups of an etcd in a directory:
//
//	backup save -endpoint http://127.0.0.1:2379 -dir /backups -keep 7
//	backup restore -dir /backups -name m1 -data-dir /var/lib/etcd \
//		-initial-cluster m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380
package main

import (
	"compress/flate"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		log.New(os.Stderr, "\rbackup: ", 0).Fatal(err)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("want a command: save or restore, each with -h for its flags")
	}
	flags := flag.NewFlagSet("backup "+args[0], flag.ContinueOnError)
	flags.SetOutput(out)
	dir := flags.String("dir", ".", "directory of the backups")
	endpoint := flags.String("endpoint", "http://127.0.0.1:2379", "save: URL of the member")
	keep := flags.Int("keep", 7, "save: number of backups to keep")
	var cfg snapshot.RestoreConfig
	flags.StringVar(&cfg.Name, "name", "default", "restore: name of the member")
	flags.StringVar(&cfg.OutputDataDir, "data-dir", "", "restore: data directory to create, [name].etcd if empty")
	flags.StringVar(&cfg.InitialCluster, "initial-cluster", "default=http://localhost:2380", "restore: all members and their peer URLs")
	flags.StringVar(&cfg.InitialClusterToken, "initial-cluster-token", "etcd-cluster", "restore: token of the new cluster")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	m := snapshot.New(snapshot.WithProgress(func(p snapshot.Progress) {
		// The total is not known while a backup is unpacked.
		_, _ = fmt.Fprintf(out, "\r%-8s %6d of %d MB ", p.Phase, p.Done/1e6, max(p.Done, p.Total)/1e6)
	}))
	printf := log.New(out, "\r", 0).Printf // overwrites the progress, which is shorter
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case *keep < 1:
		return fmt.Errorf("keep: got %d, want 1 or more", *keep)
	case args[0] == "save":
		return save(ctx, m, *endpoint, *dir, *keep, printf)
	case args[0] == "restore":
		return restore(ctx, m, *dir, cfg, printf)
	}
	return fmt.Errorf("command: got %q, want save or restore", args[0])
}

// save works in a hidden directory. A kill can leave nothing but that directory, and
// the next save removes it. save reads the backup on disk again and verifies it,
// then moves it out of the hidden directory, and only then removes old ones.
func save(ctx context.Context, m *snapshot.V3Manager, endpoint, dir string, keep int, printf func(string, ...any)) (err error) {
	leave, err := enter(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leave()) }()
	now := time.Now().UTC().Format("20060102T150405.000000Z")
	work := filepath.Join(dir, partial+now)
	if err := os.Mkdir(work, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()

	packed, err := os.OpenFile(filepath.Join(work, "db.gz"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	zip := gzip.NewWriter(packed)
	saved, err := m.SaveTo(ctx, clientv3.Config{Endpoints: []string{endpoint}}, zip)
	if err == nil {
		err = errors.Join(zip.Close(), packed.Sync()) // SaveTo does not sync
	}
	if err = errors.Join(err, packed.Close()); err != nil {
		return err
	}

	unpacked, err := os.Create(filepath.Join(work, "db"))
	if err != nil {
		return err
	}
	interrupt := context.AfterFunc(ctx, func() { _ = unpacked.Close() })
	err = unzip(packed.Name(), func(r io.Reader) error {
		_, err := io.Copy(unpacked, r)
		return err
	})
	if interrupt() {
		err = errors.Join(err, unpacked.Close())
	}
	if err = errors.Join(ctx.Err(), err); err != nil {
		return fmt.Errorf("unpack the new backup: %w", err)
	}
	status, err := m.Verify(ctx, unpacked.Name())
	if err != nil {
		return err
	}

	name := fmt.Sprintf("%s-rev%d.db.gz", now, status.Revision)
	if err := os.Rename(packed.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	// The name has to survive a power cut too. Windows has no call for that.
	if err := errors.Join(d.Sync(), d.Close()); err != nil && runtime.GOOS != "windows" {
		return err
	}
	printf("saved %s: %d bytes, SHA-256 %x", name, saved.Size, saved.SHA256)

	names, err := list(dir)
	for ; len(names) > keep; names = names[1:] {
		err = errors.Join(err, os.Remove(filepath.Join(dir, names[0])))
	}
	return err
}

// restore restores the newest sound backup. A damaged one leaves nothing at the
// target, so restore can simply try the next.
func restore(ctx context.Context, m *snapshot.V3Manager, dir string, cfg snapshot.RestoreConfig, printf func(string, ...any)) error {
	for _, member := range strings.Split(cfg.InitialCluster, ",") {
		if name, url, _ := strings.Cut(member, "="); name == cfg.Name {
			cfg.PeerURLs = append(cfg.PeerURLs, url)
		}
	}
	names, err := list(dir)
	if err != nil {
		return err
	}
	for _, name := range slices.Backward(names) {
		err := unzip(filepath.Join(dir, name), func(r io.Reader) error { return m.RestoreFrom(ctx, r, cfg) })
		if err == nil {
			printf("restored %s", name)
			return nil
		}
		if !damaged(err) {
			return err
		}
		printf("skipped %s: %v", name, err)
	}
	return fmt.Errorf("no sound backup in %s", dir)
}

// list returns the backups in dir, the oldest first.
func list(dir string) ([]string, error) {
	names, err := fs.Glob(os.DirFS(dir), "[0-9]*-rev*.db.gz")
	slices.Sort(names) // they begin with the time
	return names, err
}

func unzip(path string, use func(io.Reader) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	zip, err := gzip.NewReader(f)
	if err == nil {
		err = use(zip)
	}
	return errors.Join(err, f.Close())
}

// damaged reports whether the backup is the cause of err, and not the target or the
// configuration, with which every other backup would fail too.
func damaged(err error) bool {
	return errors.As(err, new(flate.CorruptInputError)) || slices.ContainsFunc([]error{
		snapshot.ErrTruncated, snapshot.ErrNoTrailer, snapshot.ErrChecksum, snapshot.ErrCorrupt,
		gzip.ErrHeader, gzip.ErrChecksum, io.ErrUnexpectedEOF, io.EOF,
	}, func(fault error) bool { return errors.Is(err, fault) })
}
