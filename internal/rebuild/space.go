package rebuild

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"syscall"

	"etcd.example/snapshot/internal/bootstrap"
	"etcd.example/snapshot/internal/durable"
)

// editSlack is an upper bound, in bytes, for what the edit adds to the database and
// for the smaller files.
const editSlack = 16 << 20

// checkSpace compares the free space with the space that the restore needs, as far
// as both are known.
func (r Rebuild) checkSpace(p *plan, target *durable.Target, snapshotSize int64) error {
	data, wal := p.spaceNeeded(snapshotSize)
	free, err := r.freeSpace(target.TreeDir())
	if err != nil {
		return err
	}
	if p.separateWAL() {
		freeWAL, err := r.freeSpace(filepath.Dir(target.WALTreeDir()))
		if err != nil {
			return err
		}
		same, err := durable.SameDevice(r.FS, filepath.Dir(target.TreeDir()), filepath.Dir(target.WALTreeDir()))
		if err != nil {
			return err
		}
		if same {
			data += wal
		}
		if freeWAL < wal {
			return noSpace(p.walDir, wal, freeWAL)
		}
	}
	if free < data {
		return noSpace(p.dataDir, data, free)
	}
	return nil
}

// spaceNeeded returns how many bytes must be free on the file systems of the data
// directory and of the WAL directory, for a snapshot of snapshotSize bytes. On one
// file system the two add up. For a WAL inside the data directory wal is 0, and
// data includes it.
func (p *plan) spaceNeeded(snapshotSize int64) (data, wal int64) {
	// The size of a sparse file can be close to the largest int64.
	data, wal = min(snapshotSize, math.MaxInt64/2)+editSlack, bootstrap.SegmentSize
	if !p.separateWAL() {
		return data + wal, 0
	}
	return data, wal
}

func noSpace(dir string, need, free int64) error {
	return fmt.Errorf("%w: %s needs %d bytes of space, %d are free", syscall.ENOSPC, dir, need, free)
}

// freeSpace returns the number of free bytes on the file system of dir, or the
// largest number if the file system does not report it.
func (r Rebuild) freeSpace(dir string) (int64, error) {
	free, err := r.FS.FreeSpace(dir)
	if errors.Is(err, errors.ErrUnsupported) {
		return math.MaxInt64, nil
	}
	if err != nil {
		return 0, fmt.Errorf("free space: %w", err)
	}
	return free, nil
}
