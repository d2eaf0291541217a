// Command backup keeps compressed backups of an etcd in a directory, on
// nothing but package snapshot and the standard library:
//
//	backup save -endpoint http://127.0.0.1:2379 -dir /backups -keep 7
//	backup restore -dir /backups -name m1 -data-dir /var/lib/etcd \
//		-initial-cluster m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "\rbackup: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("want a command: save or restore, each with -h for its flags")
	}
	flags := flag.NewFlagSet("backup "+args[0], flag.ContinueOnError)
	flags.SetOutput(out)
	dir := flags.String("dir", ".", "directory of the backups")
	// The line of progress is written over, at the end by a longer one.
	m := snapshot.New(snapshot.WithProgress(func(p snapshot.Progress) {
		total := "?" // of a stream that is being unpacked
		if p.Total > 0 {
			total = fmt.Sprint(p.Total / 1e6)
		}
		if p.Phase != snapshot.PhasePublish { // which is no matter of bytes
			_, _ = fmt.Fprintf(out, "\r%-8s %6d of %s MB ", p.Phase, p.Done/1e6, total)
		}
	}))
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(out, "\r"+format+"\n", args...) }
	switch args[0] {
	case "save":
		endpoint := flags.String("endpoint", "http://127.0.0.1:2379", "URL of the member to save")
		keep := flags.Int("keep", 7, "number of backups to keep")
		if err := parse(flags, args[1:]); err != nil {
			return err
		}
		if *keep < 1 {
			return fmt.Errorf("keep: got %d, want 1 or more", *keep)
		}
		return save(ctx, m, clientv3.Config{Endpoints: []string{*endpoint}}, *dir, *keep, say)
	case "restore":
		var cfg snapshot.RestoreConfig
		flags.StringVar(&cfg.Name, "name", "default", "name of the member to restore")
		flags.StringVar(&cfg.OutputDataDir, "data-dir", "", "data directory to make, [name].etcd if empty")
		flags.StringVar(&cfg.InitialCluster, "initial-cluster", "default=http://localhost:2380", "all members and their peer URLs")
		flags.StringVar(&cfg.InitialClusterToken, "initial-cluster-token", "etcd-cluster", "token of the new cluster")
		if err := parse(flags, args[1:]); err != nil {
			return err
		}
		for _, member := range strings.Split(cfg.InitialCluster, ",") {
			if name, url, _ := strings.Cut(member, "="); name == cfg.Name {
				cfg.PeerURLs = append(cfg.PeerURLs, url)
			}
		}
		return restore(ctx, m, cfg, *dir, say)
	}
	return fmt.Errorf("command: got %q, want save or restore", args[0])
}

func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return nil
}
