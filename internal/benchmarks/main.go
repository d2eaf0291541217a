// Command benchmarks measures this module's package snapshot beside etcd's own
// packages, on databases made by a real server. It runs on Linux. See
// README.md for what the figures mean.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
)

// The hidden subcommands: the command starts itself again for the server and
// for every measured run.
const (
	cmdServe = "serve"
	cmdRun   = "run-one"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := dispatch(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case cmdServe:
			return serve(os.Stdin, os.Stdout)
		case cmdRun:
			return runOne(ctx, os.Stdin, os.Stdout)
		}
	}
	opts, err := parseFlags(args, os.Stderr)
	if err != nil {
		return err
	}
	return benchmark(ctx, opts, os.Stdout, os.Stderr)
}

type options struct {
	sizes     []int64
	dir       string
	only      []operation
	runs      int
	valueSize int
	json, svg string
	add       string // a JSON file
}

func parseFlags(args []string, usage io.Writer) (options, error) {
	fs := flag.NewFlagSet("benchmarks", flag.ContinueOnError)
	fs.SetOutput(usage)
	var opts options
	var size, sizes, only string
	fs.StringVar(&size, "size", "", "size of the database, such as 500MB or 2GB; a bare number is in GB")
	fs.StringVar(&sizes, "sizes", "", "several sizes, such as 0.1,0.5,2,8")
	fs.StringVar(&only, "only", "", "operations to measure, such as status,restore (default all: "+operationNames()+")")
	fs.StringVar(&opts.dir, "dir", "", "where databases are kept and targets written (default in the user's cache directory)")
	fs.IntVar(&opts.runs, "n", 5, "runs of each implementation")
	fs.IntVar(&opts.valueSize, "value", 1000, "bytes in a value")
	fs.StringVar(&opts.json, "json", "", "write every sample to this JSON file")
	fs.StringVar(&opts.svg, "svg", "", "draw a chart into this SVG file")
	fs.StringVar(&opts.add, "add", "", "show what is in this JSON file of an earlier run too, in the table, the chart and -json")
	if err := fs.Parse(args); err != nil {
		return opts, err
	}
	if fs.NArg() > 0 {
		return opts, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if opts.runs < 1 {
		return opts, fmt.Errorf("-n %d: at least one run is needed", opts.runs)
	}
	if opts.valueSize < 1 || opts.valueSize > maxValueSize {
		return opts, fmt.Errorf("-value %d: must lie between 1 and %d", opts.valueSize, maxValueSize)
	}
	switch {
	case size != "" && sizes != "":
		return opts, errors.New("-size and -sizes exclude each other")
	case size+sizes == "":
		size = "2GB"
	}
	for s := range strings.SplitSeq(size+sizes, ",") {
		n, err := parseSize(s)
		if err != nil {
			return opts, err
		}
		opts.sizes = append(opts.sizes, n)
	}
	var err error
	if opts.only, err = selectOperations(only); err != nil {
		return opts, err
	}
	if opts.dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return opts, fmt.Errorf("find a cache directory (or name one with -dir): %w", err)
		}
		opts.dir = filepath.Join(cache, "etcd-snapshot-benchmarks")
	}
	opts.dir, err = filepath.Abs(opts.dir)
	return opts, err
}

// benchmark measures everything opts asks for. The table goes to out, progress
// to log.
func benchmark(ctx context.Context, opts options, out, log io.Writer) error {
	if err := os.MkdirAll(opts.dir, 0o700); err != nil {
		return err
	}
	rep := report{Machine: describeMachine(opts.dir), ValueSize: opts.valueSize}
	if opts.add != "" {
		if err := rep.addJSON(opts.add); err != nil {
			return fmt.Errorf("add an earlier run: %w", err)
		}
	}
	var failed error
	for _, size := range opts.sizes {
		db, err := openDatabase(ctx, opts.dir, size, opts.valueSize, log)
		if err != nil {
			return fmt.Errorf("create a database of %s: %w", formatBytes(size), err)
		}
		for _, op := range opts.only {
			res, err := measureOperation(ctx, db, op, opts.runs, log)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("%s at %s: %w", op.Name, formatBytes(size), err))
			}
			rep.Results = append(rep.Results, res)
		}
	}
	if err := rep.writeTable(out); err != nil {
		return err
	}
	if opts.json != "" {
		if err := rep.writeJSON(opts.json); err != nil {
			return fmt.Errorf("write the samples: %w", err)
		}
	}
	if opts.svg != "" {
		if err := rep.writeChart(opts.svg); err != nil {
			return fmt.Errorf("draw the chart: %w", err)
		}
	}
	return failed
}
