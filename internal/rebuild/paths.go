package rebuild

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"etcd.example/snapshot/internal/durable"
	"etcd.example/snapshot/internal/fault"
)

// resolvePaths fills in the paths of p. It reads the file system to find out which
// path is inside which, and changes nothing.
func (cfg Config) resolvePaths(fsys durable.FS, p *plan) error {
	dataDir := cfg.OutputDataDir
	if dataDir == "" {
		if strings.ContainsFunc(cfg.Name, isSeparator) {
			return invalid("OutputDataDir is empty, and no default can be made from Name %q: it has a path separator", cfg.Name)
		}
		dataDir = cfg.Name + ".etcd"
	}
	data, err := locate(fsys, "OutputDataDir", dataDir)
	if err != nil {
		return err
	}
	wal := data.join("member", "wal")
	if cfg.OutputWALDir != "" {
		if wal, err = locate(fsys, "OutputWALDir", cfg.OutputWALDir); err != nil {
			return err
		}
	}
	p.dataDir, p.walDir = data.abs, wal.abs
	rel, inside, err := data.find(fsys, wal)
	if err != nil {
		return err
	}
	_, contains, err := wal.find(fsys, data)
	if err != nil {
		return err
	}
	parent, name := filepath.Split(rel)
	switch {
	case rel == ".":
		return invalid("OutputWALDir %q must not be the data directory itself", cfg.OutputWALDir)
	case contains:
		return invalid("OutputWALDir %q must not contain the data directory %q", cfg.OutputWALDir, dataDir)
	case inside && filepath.Clean(parent) == "member" && !strings.EqualFold(name, "snap"):
		p.walName, p.walDir = name, filepath.Join(data.abs, rel)
	case inside:
		return invalid("OutputWALDir %q must be outside of the data directory %q, or directly below its %q and not %q",
			cfg.OutputWALDir, dataDir, "member", "snap")
	}
	if cfg.SnapshotPath == "" {
		return nil
	}
	if os.IsPathSeparator(cfg.SnapshotPath[len(cfg.SnapshotPath)-1]) {
		return invalid("SnapshotPath %q names no file", cfg.SnapshotPath)
	}
	// A ".." after a symbolic link counts as the system counts it when it opens
	// the file. In directories etcd removes such dots first, as locate does.
	path, err := durable.Abs(fsys, cfg.SnapshotPath)
	if err != nil {
		return fmt.Errorf("SnapshotPath %q: %w", cfg.SnapshotPath, err)
	}
	source, err := locate(fsys, "SnapshotPath", path)
	if err != nil {
		return err
	}
	p.snapshotPath = source.abs
	if _, inside, err := data.find(fsys, source); err != nil {
		return err
	} else if inside {
		return invalid("SnapshotPath %q must be outside of the data directory %q", cfg.SnapshotPath, dataDir)
	}
	if _, inside, err := wal.find(fsys, source); err != nil {
		return err
	} else if inside {
		return invalid("SnapshotPath %q must be outside of OutputWALDir %q", cfg.SnapshotPath, cfg.OutputWALDir)
	}
	return nil
}

// location is a path twice: absolute and clean, and with its symbolic links
// followed as far as it exists.
type location struct {
	abs, real string
}

// locate returns the location of path, which the configuration calls name.
func locate(fsys durable.FS, name, path string) (location, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return location{}, fmt.Errorf("%s %q: %w", name, path, err)
	}
	followed, err := followLinks(fsys, abs)
	if err != nil {
		return location{}, fmt.Errorf("%s %q: %w", name, path, err)
	}
	return location{abs: abs, real: followed}, nil
}

func (l location) join(names ...string) location {
	rel := filepath.Join(names...)
	return location{abs: filepath.Join(l.abs, rel), real: filepath.Join(l.real, rel)}
}

// find reports whether other is within l, and its path relative to l, "." if they
// are the same.
func (l location) find(fsys durable.FS, other location) (rel string, within bool, err error) {
	rel, within, err = durable.Within(fsys, l.real, other.real)
	if err != nil {
		err = fmt.Errorf("compare %s with %s: %w", other.abs, l.abs, err)
	}
	return rel, within, err
}

// followLinks returns an absolute and clean path without symbolic links. The
// part that does not exist yet stays as it is.
func followLinks(fsys durable.FS, path string) (string, error) {
	for existing := path; ; existing = filepath.Dir(existing) {
		followed, err := fsys.EvalSymlinks(existing)
		if errors.Is(err, fs.ErrNotExist) && existing != filepath.Dir(existing) {
			continue
		}
		return filepath.Join(followed, path[len(existing):]), err
	}
}

func isSeparator(r rune) bool { return r < 0x80 && os.IsPathSeparator(uint8(r)) }

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{fault.ErrConfig}, args...)...)
}
