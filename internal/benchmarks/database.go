package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	peersave "go.etcd.io/etcd/client/v3/snapshot"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// minDatabase is the smallest size of a database in bytes.
const minDatabase = 1_000_000

// database is a snapshot file and the server that it was taken from. Neither
// changes; targets are written into dir beside them.
type database struct {
	dir  string
	Size int64 `json:"size"` // bytes of the snapshot file
	Keys int64 `json:"keys"`
}

func (d *database) snapshotPath() string { return filepath.Join(d.dir, "snapshot.db") }
func (d *database) serverDir() string    { return filepath.Join(d.dir, "server") }
func (d *database) serverDB() string     { return filepath.Join(d.serverDir(), "member", "snap", "db") }

// scratch is created for every run and holds the target.
func (d *database) scratch() string { return filepath.Join(d.dir, "scratch") }
func (d *database) target() string  { return filepath.Join(d.scratch(), "target") }

// openDatabase returns the database of about size bytes under dir, and creates it
// if it does not exist. It writes database.json last, so that it creates an
// interrupted one again.
func openDatabase(ctx context.Context, dir string, size int64, valueSize int, log io.Writer) (*database, error) {
	d := &database{dir: filepath.Join(dir, fmt.Sprintf("%d-bytes-%d-values", size, valueSize))}
	ready := filepath.Join(d.dir, "database.json")
	if text, err := os.ReadFile(ready); err == nil {
		return d, json.Unmarshal(text, d)
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := os.RemoveAll(d.dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, err
	}
	if err := d.fill(ctx, size, valueSize, log); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(d, "", "\t")
	if err != nil {
		return nil, err
	}
	unix.Sync()
	return d, os.WriteFile(ready, text, 0o600)
}

// fill writes keys to a new server until its database has the wanted size, and
// saves the snapshot.
func (d *database) fill(ctx context.Context, size int64, valueSize int, log io.Writer) (err error) {
	srv, err := startServer(d.serverDir())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.stop()) }()
	cli, err := clientv3.New(clientConfig(srv.endpoint))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cli.Close()) }()

	perKey := int64(valueSize+100) * 3 / 2 // a first guess; later rounds measure it
	for have := int64(0); have < size-size/200; {
		// At least one page of records, and never beyond the size because of a guess.
		n := max((size-have)*9/10/perKey, int64(4096/(valueSize+100))+1)
		if err := putKeys(ctx, cli, d.Keys, n, valueSize); err != nil {
			return fmt.Errorf("put keys: %w", err)
		}
		d.Keys += n
		// The size is that of the last commit.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * commitInterval):
		}
		st, err := cli.Status(ctx, srv.endpoint)
		if err != nil {
			return err
		}
		have = st.DbSize
		perKey = max(1, have/d.Keys)
		if _, err := fmt.Fprintf(log, "\rmaking a database of %s: %s, %d keys  ", formatBytes(size), formatBytes(have), d.Keys); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintln(log); err != nil {
		return err
	}
	if _, err := peersave.SaveWithVersion(ctx, zap.NewNop(), clientConfig(srv.endpoint), d.snapshotPath()); err != nil {
		return fmt.Errorf("save the snapshot: %w", err)
	}
	info, err := os.Stat(d.snapshotPath())
	if err != nil {
		return err
	}
	d.Size = info.Size()
	return nil
}

// putKeys puts the keys first to first+n-1 in transactions, several at a time.
func putKeys(ctx context.Context, cli *clientv3.Client, first, n int64, valueSize int) error {
	const workers = 4
	perTxn := int64(min(opsPerTxn, max(1, maxValueSize/(valueSize+100))))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				start := next.Add(perTxn) - perTxn
				if start >= n {
					return
				}
				if err := putTxn(ctx, cli, first+start, min(perTxn, n-start), valueSize); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func putTxn(ctx context.Context, cli *clientv3.Client, first, n int64, valueSize int) error {
	ops := make([]clientv3.Op, n)
	for i := range ops {
		id := uint64(first) + uint64(i)
		ops[i] = clientv3.OpPut(keyName(id), string(randomValue(id, valueSize)))
	}
	for {
		_, err := cli.Txn(ctx).Then(ops...).Commit()
		// The kernel may block writers for longer than etcd waits.
		if !errors.Is(err, rpctypes.ErrTimeout) {
			return err
		}
	}
}

// keyName returns keys that are spread over the key space like real ones, and are as
// long.
func keyName(id uint64) string {
	return fmt.Sprintf("/registry/pods/namespace-%03d/%016x", id%1000, rand.NewPCG(id, 0).Uint64())
}

// randomValue has no structure that a file system could compress.
func randomValue(seed uint64, size int) []byte {
	src := rand.NewPCG(seed, 1)
	v := make([]byte, 0, size+7)
	for len(v) < size {
		x := src.Uint64()
		v = append(v, byte(x), byte(x>>8), byte(x>>16), byte(x>>24), byte(x>>32), byte(x>>40), byte(x>>48), byte(x>>56))
	}
	return v[:size]
}
