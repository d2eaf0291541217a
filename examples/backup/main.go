// Command backup keeps compressed backups of an etcd in a directory, on
// nothing but package snapshot and the standard library:
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
	b := backups{say: log.New(out, "\r", 0).Printf} // over the progress
	b.manager = snapshot.New(snapshot.WithProgress(func(p snapshot.Progress) {
		_, _ = fmt.Fprintf(out, "\r%-8s %6d of %d MB ", p.Phase, p.Done/1e6, max(p.Done, p.Total)/1e6)
	}))
	flags := flag.NewFlagSet("backup "+args[0], flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&b.dir, "dir", ".", "directory of the backups")
	var command func() error
	switch args[0] {
	case "save":
		endpoint := flags.String("endpoint", "http://127.0.0.1:2379", "URL of the member to save")
		keep := flags.Int("keep", 7, "number of backups to keep")
		command = func() error { return b.save(ctx, *endpoint, *keep) }
	case "restore":
		var cfg snapshot.RestoreConfig
		flags.StringVar(&cfg.Name, "name", "default", "name of the member to restore")
		flags.StringVar(&cfg.OutputDataDir, "data-dir", "", "data directory to make, [name].etcd if empty")
		flags.StringVar(&cfg.InitialCluster, "initial-cluster", "default=http://localhost:2380", "all members and their peer URLs")
		flags.StringVar(&cfg.InitialClusterToken, "initial-cluster-token", "etcd-cluster", "token of the new cluster")
		command = func() error { return b.restore(ctx, cfg) }
	default:
		return fmt.Errorf("command: got %q, want save or restore", args[0])
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return command()
}
