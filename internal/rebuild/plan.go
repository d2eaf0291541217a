package rebuild

import (
	"context"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/pkg/v3/netutil"
	"go.uber.org/zap"

	"etcd.example/snapshot/internal/bootstrap"
	"etcd.example/snapshot/internal/durable"
)

// resolveTimeout bounds the look-up of host names when peer URLs differ in text.
// netutil retries until it is over.
const resolveTimeout = 10 * time.Second

// maxMmapSize is the largest mapping in bytes on any platform of etcd.
const maxMmapSize = 1<<48 - 1

// plan is a valid Config with all defaults filled in. All paths are absolute.
type plan struct {
	snapshotPath string // empty if the snapshot comes from a reader
	dataDir      string
	walDir       string
	// walName is the name of the WAL directory in dataDir's member directory,
	// empty if the WAL directory is outside of the data directory.
	walName string

	cluster *bootstrap.Cluster
	changes bootstrap.Changes

	skipHashCheck     bool
	allowEmptyDataDir bool
}

// separateWAL reports whether the WAL directory is outside of the data directory.
func (p *plan) separateWAL() bool { return p.walName == "" }

// resolve checks everything that can be checked without touching the target.
// Errors match [fault.ErrConfig], unless a path cannot be read or the context has
// ended. With fromReader, cfg.SnapshotPath must be empty.
func (cfg Config) resolve(ctx context.Context, fsys durable.FS, fromReader bool) (*plan, error) {
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
func (cfg Config) resolveMembers() (types.URLsMap, error) {
	if cfg.Name == "" {
		return nil, invalid("Name is empty")
	}
	if !utf8.ValidString(cfg.InitialCluster) { // no etcd could send its name to the others
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

// checkPeerURLs compares PeerURLs with the ones that InitialCluster lists for Name,
// as etcd does: it resolves host names only if the texts differ, for at most
// timeout.
func (cfg Config) checkPeerURLs(ctx context.Context, want types.URLs, timeout time.Duration) error {
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
