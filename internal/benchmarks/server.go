package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"etcd.example/snapshot/internal/snaptest"
)

const (
	opsPerTxn = 512
	// maxValueSize keeps a transaction below the size that the server accepts.
	maxValueSize = 1 << 20
	// commitInterval is how long the server collects writes.
	commitInterval = 100 * time.Millisecond
)

// serve runs an etcd on the data directory that the first line of in names,
// prints its endpoint to out and stops when in ends.
func serve(in io.Reader, out io.Writer) error {
	r := bufio.NewReader(in)
	dir, err := r.ReadString('\n')
	if err != nil {
		return fmt.Errorf("read the data directory: %w", err)
	}
	e, err := snaptest.Run(context.Background(), snaptest.Config{
		DataDir:    strings.TrimSuffix(dir, "\n"),
		QuotaBytes: 1 << 38, // more than any size asked for; the server maps as much
		// Few entries, because one may be half a megabyte and they are kept in
		// memory.
		SnapshotCount: 200,
		Configure: func(c *embed.Config) {
			c.SnapshotCatchUpEntries = 50
			c.MaxSnapFiles, c.MaxWalFiles = 1, 1
			c.MaxTxnOps = opsPerTxn
			c.BackendBatchInterval = commitInterval
			c.MaxRequestBytes = 4 * maxValueSize
		},
	})
	if err != nil {
		return err
	}
	defer e.Stop()
	if _, err := fmt.Fprintln(out, e.Endpoint()); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return err
}

// server is an etcd in a process of its own.
type server struct {
	endpoint string
	cmd      *exec.Cmd
	stdin    io.Closer
}

func startServer(dataDir string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, cmdServe)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd, stdin: stdin}
	if _, err = fmt.Fprintln(stdin, dataDir); err == nil {
		s.endpoint, err = bufio.NewReader(stdout).ReadString('\n')
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start an etcd server: %w", err), s.stop())
	}
	s.endpoint = strings.TrimSpace(s.endpoint)
	return s, nil
}

func (s *server) stop() error {
	return errors.Join(s.stdin.Close(), s.cmd.Wait())
}

func clientConfig(endpoint string) clientv3.Config {
	return clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()}
}
