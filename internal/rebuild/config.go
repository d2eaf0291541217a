package rebuild

// Config describes a restore, as package snapshot documents its RestoreConfig.
type Config struct {
	SnapshotPath        string
	Name                string
	OutputDataDir       string
	OutputWALDir        string
	PeerURLs            []string
	InitialCluster      string
	InitialClusterToken string
	SkipHashCheck       bool
	InitialMmapSize     uint64
	RevisionBump        uint64
	MarkCompacted       bool
	AllowEmptyDataDir   bool
	DropAlarms          bool
}
