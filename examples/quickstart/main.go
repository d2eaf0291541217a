// Command quickstart shows the whole of package snapshot on an etcd of its own:
//
//	go run ./examples/quickstart
//
// It starts an embedded etcd on free loopback ports in a temporary directory,
// writes to it, saves a snapshot, verifies it, restores it, boots the restored
// directory and compares everything. It cleans up, and its exit
// status is not zero if anything differs.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"text/tabwriter"
	"time"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "snapshot-quickstart-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	// An etcd with something in it.
	const name = "quickstart"
	original, err := snaptest.Run(ctx, snaptest.Config{Name: name, DataDir: filepath.Join(dir, "original")})
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	defer original.Stop()
	if err := write(ctx, original.Client()); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	before, err := read(ctx, original.Client())
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	printLine(out, "An etcd is running at %s with %d keys.", original.Endpoint(), len(before.keys))

	// Save, and print what the file holds.
	m := snapshot.New()
	path := filepath.Join(dir, "backup.db")
	start := time.Now()
	if err := m.Save(ctx, original.ClientConfig(), path); err != nil {
		return err
	}
	printLine(out, "Saved in %v, SHA-256 checked on the way. The snapshot holds:\n", since(start))
	status, err := m.StatusContext(ctx, path)
	if err != nil {
		return err
	}
	if err := printStatus(out, status); err != nil {
		return err
	}
	if _, err := m.Verify(ctx, path); err != nil {
		return err
	}
	printLine(out, "\nVerified: checksum, structure and every record.")
	original.Stop()

	// Restore, and boot the restored directory.
	restored := filepath.Join(dir, "restored")
	start = time.Now()
	err = m.RestoreContext(ctx, snapshot.RestoreConfig{
		SnapshotPath:        path,
		Name:                name,
		OutputDataDir:       restored,
		PeerURLs:            []string{original.PeerURL},
		InitialCluster:      name + "=" + original.PeerURL,
		InitialClusterToken: "restored",
	})
	if err != nil {
		return err
	}
	printLine(out, "Restored in %v. The old etcd is stopped, a new one boots from the restored directory.", since(start))
	reborn, err := snaptest.Run(ctx, snaptest.Config{Name: name, DataDir: restored, PeerURL: original.PeerURL})
	if err != nil {
		return fmt.Errorf("boot the restored directory: %w", err)
	}
	defer reborn.Stop()
	after, err := read(ctx, reborn.Client())
	if err != nil {
		return fmt.Errorf("read the restored keys: %w", err)
	}
	if err := compare(before, after, status); err != nil {
		return fmt.Errorf("restored etcd differs: %w", err)
	}
	printLine(out, "Compared: %d keys with value, versions and revisions, %d of them on a lease, "+
		"the revision (%d), the user and the role. They are equal.", len(after.keys), after.leased(), after.revision)
	return nil
}

func printStatus(out io.Writer, s snapshot.Status) error {
	t := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, row := range [][2]any{
		{"hash", fmt.Sprintf("%08x", s.Hash)},
		{"revision", s.Revision},
		{"keys", s.TotalKey},
		{"size", fmt.Sprintf("%d bytes", s.TotalSize)},
		{"storage version", cmp.Or(s.Version, "not set yet")}, // a new server does so in a moment
	} {
		_, _ = fmt.Fprintf(t, "  %v\t%v\n", row[0], row[1]) // Flush reports it
	}
	return t.Flush()
}

// printLine prints a line. It ignores errors: a closed terminal is no reason to stop.
func printLine(out io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(out, format+"\n", args...)
}

func since(t time.Time) time.Duration { return time.Since(t).Round(time.Millisecond) }
