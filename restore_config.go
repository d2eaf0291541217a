package snapshot

// RestoreConfig says what to restore, as which member, and where to.
type RestoreConfig struct {
	// SnapshotPath is the snapshot file to restore from. For RestoreFrom it must be
	// empty.
	SnapshotPath string

	// Name is the human-readable name of this member. It must be one of the
	// names in InitialCluster.
	Name string

	// OutputDataDir is the data directory to create. It must not exist; see
	// AllowEmptyDataDir. Defaults to "[Name].etcd" in the working directory, for a
	// Name without path separators.
	OutputDataDir string

	// OutputWALDir is the WAL directory to create. It must not exist. It may be on
	// another file system. Inside OutputDataDir it must be directly below "member".
	// Defaults to "[OutputDataDir]/member/wal".
	OutputWALDir string

	// PeerURLs are the peer URLs that this member advertises. They must be the ones
	// that InitialCluster lists for Name, in any order. If the texts differ,
	// Restore resolves host names other than localhost, for 10 seconds at most, and
	// compares the addresses.
	PeerURLs []string

	// InitialCluster lists all members of the new cluster:
	// "name1=http://host1:2380,name2=http://host2:2380".
	InitialCluster string

	// InitialClusterToken tells clusters with the same peer URLs apart. Restore all
	// members with the same one.
	InitialClusterToken string

	// SkipHashCheck skips the comparison of the checksum. You need it for a db file
	// copied out of a data directory, which has no checksum. Restore still checks
	// the structure of the file, but not its records.
	SkipHashCheck bool

	// InitialMmapSize has no effect. It is here for programs written for etcd's
	// package, which maps that many bytes of the database while it edits it. This
	// package does not map the database.
	InitialMmapSize uint64

	// RevisionBump is added to the latest revision, so that clients with caches
	// never see revisions go backwards. It must exceed the number of writes since
	// the snapshot. It requires MarkCompacted. The sum must fit into an int64. A
	// server fails when it runs out of revisions, so leave it some.
	RevisionBump uint64

	// MarkCompacted marks the bumped revision as compacted, so that watchers from
	// before the restore start anew. It requires RevisionBump.
	MarkCompacted bool

	// AllowEmptyDataDir accepts an OutputDataDir that exists and is empty, or holds
	// only "lost+found": a freshly mounted volume. The directory keeps its
	// permissions.
	AllowEmptyDataDir bool

	// DropAlarms drops the alarms of the snapshot. Without it the restored cluster
	// keeps them until you disarm them: NOSPACE refuses puts and new leases,
	// CORRUPT all writes, compactions, and granting and revoking leases. Neither
	// refuses reads.
	DropAlarms bool
}
