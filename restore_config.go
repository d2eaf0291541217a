package snapshot

// RestoreConfig says what to restore, as which member, and where to.
type RestoreConfig struct {
	// SnapshotPath is the snapshot file to restore from. RestoreFrom reads
	// from its reader instead and wants this empty.
	SnapshotPath string

	// Name is the human-readable name of this member. It must be one of the
	// names in InitialCluster.
	Name string

	// OutputDataDir is the data directory to make. It must not exist, see
	// AllowEmptyDataDir. Defaults to "[Name].etcd" in the working directory, for
	// a Name without path separators.
	OutputDataDir string

	// OutputWALDir is the WAL directory to make. It must not exist, and may be
	// on another file system. Inside OutputDataDir it can only be directly
	// below "member". Defaults to "[OutputDataDir]/member/wal".
	OutputWALDir string

	// PeerURLs are the peer URLs that this member advertises. They must be
	// those that InitialCluster gives for Name, in any order. Where the texts
	// differ, host names other than localhost are resolved, for 10 seconds at
	// most, and the addresses compared.
	PeerURLs []string

	// InitialCluster lists all members of the new cluster:
	// "name1=http://host1:2380,name2=http://host2:2380".
	InitialCluster string

	// InitialClusterToken keeps clusters apart that have the same peer URLs.
	// All members must be restored with the same one.
	InitialClusterToken string

	// SkipHashCheck skips the comparison with the SHA-256 trailer. It is needed
	// for a db file copied out of a data directory, which has none. The
	// structure of the file is checked all the same, its records are not.
	SkipHashCheck bool

	// InitialMmapSize has no effect and is there for programs written for
	// etcd's package, where it is the number of bytes that the database is
	// mapped with while it is edited. Here the database is not mapped.
	InitialMmapSize uint64

	// RevisionBump is added to the latest revision, so that clients with
	// caches never see revisions go backwards. It needs MarkCompacted. The sum
	// must fit into an int64; a server fails when it runs out of revisions, so
	// leave it room.
	RevisionBump uint64

	// MarkCompacted marks the bumped revision as compacted, so that watchers
	// from before the restore are told to start anew. It needs RevisionBump.
	MarkCompacted bool

	// AllowEmptyDataDir accepts an OutputDataDir that exists and holds nothing
	// but, possibly, "lost+found": a freshly mounted volume. It keeps its
	// permissions.
	AllowEmptyDataDir bool

	// DropAlarms drops the alarms that are in the snapshot. It is off by
	// default, and the restored cluster then has them until they are disarmed:
	// NOSPACE refuses puts and new leases, CORRUPT all writes and new leases.
	// Neither refuses reads.
	DropAlarms bool
}
