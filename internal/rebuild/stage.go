package rebuild

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/durable"
)

const fileMode = 0o600

// staging is the data directory while it is built, in a hidden directory. Its
// files are synced when it is published.
type staging struct {
	Rebuild
	plan   *plan
	source source
	target *durable.Target

	snapDir string // member/snap
	walDir  string

	file    durable.File // member/snap/db, while it is open
	size    int64        // bytes of the database
	db      *boltfile.DB // the database, checked
	buckets []boltfile.Bucket
}

// stage creates the directories, if there is enough space. The caller must call
// cleanUp.
func (r Rebuild) stage(p *plan, size int64, src source) (*staging, error) {
	cfg := durable.TargetConfig{Dir: p.dataDir, AllowEmptyDir: p.allowEmptyDataDir}
	if p.separateWAL() {
		cfg.WALDir = p.walDir
	}
	target, err := durable.Open(r.FS, cfg)
	if err != nil {
		return nil, err
	}
	s := &staging{Rebuild: r, plan: p, source: src, target: target}
	s.FS = target.FS()
	if err := s.makeDirs(size); err != nil {
		return nil, s.cleanUp(err)
	}
	return s, nil
}

func (s *staging) makeDirs(size int64) error {
	if err := s.checkSpace(s.plan, s.target, size); err != nil {
		return err
	}
	member := filepath.Join(s.target.TreeDir(), "member")
	s.snapDir, s.walDir = filepath.Join(member, "snap"), s.target.WALTreeDir()
	if !s.plan.separateWAL() {
		s.walDir = filepath.Join(member, s.plan.walName)
	}
	for _, dir := range []string{s.snapDir, s.walDir} {
		if err := durable.MkdirAll(s.FS, dir); err != nil {
			return fmt.Errorf("create directories: %w", err)
		}
	}
	return nil
}

// create creates a file. It is an error if the file exists.
func (s *staging) create(path string) (durable.File, error) {
	return s.FS.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
}

// closeDatabase closes the database file, if it is open, after err.
func (s *staging) closeDatabase(err error) error {
	if s.file == nil {
		return err
	}
	f := s.file
	s.file = nil
	return errors.Join(err, f.Close())
}

// cleanUp stops what still runs, removes what was not published, and returns err
// with the errors of that.
func (s *staging) cleanUp(err error) error {
	s.source.stop()
	err = s.closeDatabase(err)
	if cerr := s.target.Cleanup(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("clean up: %w", cerr))
	}
	return err
}
