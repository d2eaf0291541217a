package rebuild

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"etcd.example/snapshot/internal/bootstrap"
	"etcd.example/snapshot/internal/durable"
)

// complete writes what the new cluster needs beside its database: WAL and .snap.
func (s *staging) complete(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.write(filepath.Join(s.walDir, bootstrap.WALName), s.writeWAL); err != nil {
		return fmt.Errorf("write WAL: %w", err)
	}
	name, content, err := s.plan.cluster.Snap()
	if err == nil {
		err = s.write(filepath.Join(s.snapDir, name), func(f durable.File) error {
			n, err := f.Write(content)
			if err == nil && n < len(content) {
				err = io.ErrShortWrite
			}
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("write snapshot file: %w", err)
	}
	return nil
}

func (s *staging) writeWAL(f durable.File) error {
	if err := s.FS.Allocate(f, bootstrap.SegmentSize); err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	if err := s.plan.cluster.WriteWAL(w); err != nil {
		return err
	}
	return w.Flush()
}

// write creates a file, fills it, and closes it.
func (s *staging) write(path string, fill func(durable.File) error) (err error) {
	f, err := s.create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return fill(f)
}
