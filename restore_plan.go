package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/pkg/v3/netutil"
	"go.uber.org/zap"

	"etcd.example/snapshot/internal/bootstrap"
	"etcd.example/snapshot/internal/durable"
)

// resolveTimeout bounds the look-up of host names when peer URLs differ in text.
// netutil tries again all that time.
const resolveTimeout = 10 * time.Second

// maxMmapSize is the largest mapping in bytes that there can be on any platform
// of etcd.
const maxMmapSize = 1<<48 - 1

// editSlack is how many bytes the database may grow by while it is edited, and
// what the smaller files need: far more than either.
const editSlack = 16 << 20

// plan is a RestoreConfig that has been found valid, with all defaults filled
// in. All paths are absolute.
type plan struct {
	snapshotPath string // empty where the snapshot comes from a reader
	dataDir      string
	walDir       string
	// walName is the name of the WAL directory in dataDir's member directory,
	// empty where the WAL directory is outside of the data directory.
	walName string

	cluster *bootstrap.Cluster
	changes bootstrap.Changes

	skipHashCheck     bool
	allowEmptyDataDir bool
}

// separateWAL reports whether the WAL directory is outside of the data directory.
func (p *plan) separateWAL() bool { return p.walName == "" }

// spaceNeeded returns how many bytes have to be free in the file systems of the
// data and of the WAL directory for a snapshot of snapshotSize bytes. They add
// up where both are on the same one; for a WAL inside the data directory wal is
// 0, and data includes it.
func (p *plan) spaceNeeded(snapshotSize int64) (data, wal int64) {
	// A sparse file can have nearly the largest size there is.
	data, wal = min(snapshotSize, math.MaxInt64/2)+editSlack, bootstrap.SegmentSize
	if !p.separateWAL() {
		return data + wal, 0
	}
	return data, wal
}

// resolve checks everything that can be checked without touching the target,
// and returns what to do. Errors match ErrConfig, except where a path cannot be
// looked at or the context has ended. With fromReader the snapshot comes from
// elsewhere than cfg.SnapshotPath.
func (cfg RestoreConfig) resolve(ctx context.Context, fsys durable.FS, fromReader bool) (*plan, error) {
	p := &plan{
		changes:           bootstrap.Changes{RevisionBump: cfg.RevisionBump, DropAlarms: cfg.DropAlarms},
		skipHashCheck:     cfg.SkipHashCheck,
		allowEmptyDataDir: cfg.AllowEmptyDataDir,
	}
	switch {
	case fromReader && cfg.SnapshotPath != "":
		return nil, invalid("SnapshotPath is %q, but the snapshot comes from a reader", cfg.SnapshotPath)
	case !fromReader && cfg.SnapshotPath == "":
		return nil, invalid("SnapshotPath is empty")
	case cfg.RevisionBump > 0 && !cfg.MarkCompacted:
		return nil, invalid("RevisionBump is %d without MarkCompacted: one needs the other", cfg.RevisionBump)
	case cfg.RevisionBump == 0 && cfg.MarkCompacted:
		return nil, invalid("MarkCompacted is set without RevisionBump: one needs the other")
	case cfg.RevisionBump > math.MaxInt64:
		return nil, invalid("RevisionBump %d is more than the largest revision %d", cfg.RevisionBump, int64(math.MaxInt64))
	case cfg.InitialMmapSize > maxMmapSize:
		return nil, invalid("InitialMmapSize %d is more than the largest mapping of %d bytes", cfg.InitialMmapSize, int64(maxMmapSize))
	}
	members, err := cfg.resolveMembers()
	if err != nil {
		return nil, err
	}
	if err := cfg.resolvePaths(fsys, p); err != nil {
		return nil, err
	}
	if p.cluster, err = bootstrap.New(cfg.Name, cfg.InitialClusterToken, members); err != nil {
		return nil, invalid("InitialCluster %q: %w", cfg.InitialCluster, err)
	}
	if err := cfg.checkPeerURLs(ctx, members[cfg.Name], resolveTimeout); err != nil {
		return nil, err
	}
	return p, nil
}

// resolveMembers returns the members of InitialCluster, Name among them.
func (cfg RestoreConfig) resolveMembers() (types.URLsMap, error) {
	if cfg.Name == "" {
		return nil, invalid("Name is empty")
	}
	if !utf8.ValidString(cfg.InitialCluster) { // no etcd could tell the others its name
		return nil, invalid("InitialCluster %q is not UTF-8", cfg.InitialCluster)
	}
	members, err := types.NewURLsMap(cfg.InitialCluster)
	if err != nil {
		return nil, invalid("InitialCluster %q: %w", cfg.InitialCluster, err)
	}
	if len(members) == 0 {
		return nil, invalid("InitialCluster is %q: it names no member", cfg.InitialCluster)
	}
	if _, ok := members[""]; ok {
		return nil, invalid("InitialCluster %q has a member without a name", cfg.InitialCluster)
	}
	if _, ok := members[cfg.Name]; !ok {
		return nil, invalid("Name %q is not in InitialCluster %q", cfg.Name, cfg.InitialCluster)
	}
	urls := members.URLs()
	for i := range urls[1:] {
		if urls[i] == urls[i+1] {
			return nil, invalid("InitialCluster %q has the URL %q twice", cfg.InitialCluster, urls[i])
		}
	}
	return members, nil
}

// checkPeerURLs compares PeerURLs with those that InitialCluster gives for Name,
// as etcd does: the network is used only where their texts differ, and for no
// longer than timeout.
func (cfg RestoreConfig) checkPeerURLs(ctx context.Context, want types.URLs, timeout time.Duration) error {
	got, err := types.NewURLs(cfg.PeerURLs)
	if err != nil {
		return invalid("PeerURLs %q: %w", cfg.PeerURLs, err)
	}
	lookup, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	equal, err := netutil.URLStringsEqual(lookup, zap.NewNop(), got.StringSlice(), want.StringSlice())
	if equal {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("compare PeerURLs with InitialCluster: %w", ctx.Err())
	}
	return invalid("PeerURLs %q are not those of InitialCluster for %q, %q: %w",
		cfg.PeerURLs, cfg.Name, want.StringSlice(), err)
}

// resolvePaths fills in the paths of p. It looks at what is there, to find out
// which path is inside of which, and changes nothing.
func (cfg RestoreConfig) resolvePaths(fsys durable.FS, p *plan) error {
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
	// Where opening it leads to, also with ".." after a symbolic link. Of the
	// directories etcd takes such dots away first, and so does locate.
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

// location is a path, absolute and clean as it was given, and with the symbolic
// links in it followed as far as it exists.
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

// find returns the path of other relative to l, "." if they are the same, and
// whether other is within l at all.
func (l location) find(fsys durable.FS, other location) (rel string, within bool, err error) {
	rel, within, err = durable.Within(fsys, l.real, other.real)
	if err != nil {
		err = fmt.Errorf("compare %s with %s: %w", other.abs, l.abs, err)
	}
	return rel, within, err
}

// followLinks returns an absolute and clean path without symbolic links. What
// does not exist yet stays as it is.
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
	return fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...)
}
