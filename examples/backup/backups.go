package main

import (
	"compress/flate"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot"
)

// suffix ends the name of a backup. The time stands first, so that names sort
// by age.
const suffix = ".db.gz"

// save makes a new backup and only then lets go of old ones.
func save(ctx context.Context, m *snapshot.V3Manager, cfg clientv3.Config, dir string, keep int, say func(string, ...any)) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	name, saved, err := publish(ctx, m, cfg, dir)
	if err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	say("saved %s: %d bytes, SHA-256 %x", name, saved.Size, saved.SHA256)
	if err := prune(dir, keep); err != nil {
		return fmt.Errorf("remove old backups: %w", err)
	}
	return nil
}

// publish gives a backup its name when what is on disk has been read again and
// verified. A backup that failed has no name, and nothing of it is left.
func publish(ctx context.Context, m *snapshot.V3Manager, cfg clientv3.Config, dir string) (name string, saved snapshot.Saved, err error) {
	partial, err := os.CreateTemp(dir, ".partial-*")
	if err != nil {
		return "", saved, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(partial.Name()))
		}
	}()
	if saved, err = download(ctx, m, cfg, partial); err != nil {
		return "", saved, err
	}
	status, err := verify(ctx, m, partial.Name())
	if err != nil {
		return "", saved, fmt.Errorf("verify what was written: %w", err)
	}
	name = fmt.Sprintf("%s-rev%d%s", time.Now().UTC().Format("20060102T150405.000000Z"), status.Revision, suffix)
	return name, saved, os.Rename(partial.Name(), filepath.Join(dir, name))
}

// download streams the snapshot through gzip into f, and syncs and closes f.
func download(ctx context.Context, m *snapshot.V3Manager, cfg clientv3.Config, f *os.File) (snapshot.Saved, error) {
	zip, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		return snapshot.Saved{}, errors.Join(err, f.Close())
	}
	saved, err := m.SaveTo(ctx, cfg, zip)
	if err == nil {
		err = errors.Join(zip.Close(), f.Sync())
	}
	return saved, errors.Join(err, f.Close())
}

// verify unpacks a backup beside it for as long as it takes to judge it.
func verify(ctx context.Context, m *snapshot.V3Manager, path string) (_ snapshot.Status, err error) {
	unpacked, err := os.CreateTemp(filepath.Dir(path), ".partial-*")
	if err != nil {
		return snapshot.Status{}, err
	}
	defer func() { err = errors.Join(err, os.Remove(unpacked.Name())) }()
	err = unzip(path, func(r io.Reader) error {
		_, err := io.Copy(unpacked, r)
		return err
	})
	if err := errors.Join(err, unpacked.Close()); err != nil {
		return snapshot.Status{}, err
	}
	return m.Verify(ctx, unpacked.Name())
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

// list returns the backups in dir, the newest first.
func list(dir string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "[0-9]*-rev*"+suffix))
	slices.Sort(paths)
	slices.Reverse(paths)
	return paths, err
}

func prune(dir string, keep int) error {
	paths, err := list(dir)
	for _, path := range paths[min(keep, len(paths)):] {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// restore takes the newest backup that is sound. A restore that fails leaves
// nothing behind, so the next one can simply be tried.
func restore(ctx context.Context, m *snapshot.V3Manager, cfg snapshot.RestoreConfig, dir string, say func(string, ...any)) error {
	paths, err := list(dir)
	if err != nil {
		return err
	}
	for _, path := range paths {
		err := unzip(path, func(r io.Reader) error { return m.RestoreFrom(ctx, r, cfg) })
		if err == nil {
			say("restored %s", filepath.Base(path))
			return nil
		}
		if !damaged(err) {
			return err
		}
		say("skipped %s: %v", filepath.Base(path), err)
	}
	return fmt.Errorf("no sound backup in %s", dir)
}

// damaged tells a backup that is at fault from a target or a configuration
// that would be at fault with every other backup too.
func damaged(err error) bool {
	var corrupt flate.CorruptInputError
	return errors.As(err, &corrupt) || slices.ContainsFunc([]error{
		snapshot.ErrTruncated, snapshot.ErrNoTrailer, snapshot.ErrChecksum, snapshot.ErrCorrupt,
		gzip.ErrHeader, gzip.ErrChecksum, io.ErrUnexpectedEOF, io.EOF,
	}, func(target error) bool { return errors.Is(err, target) })
}

// syncDir makes the names in dir survive a power cut.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // which has no such call
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
