// Package schema names the buckets of an etcd database, and some of their
// records, as etcd's server/storage/schema does.
package schema

// Buckets of the top level.
const (
	BucketAlarm          = "alarm"
	BucketAuth           = "auth"
	BucketAuthRoles      = "authRoles"
	BucketAuthUsers      = "authUsers"
	BucketCluster        = "cluster"
	BucketKey            = "key"
	BucketLease          = "lease"
	BucketMembers        = "members"
	BucketMembersRemoved = "members_removed"
	BucketMeta           = "meta"
)

// Records of the buckets cluster and auth.
const (
	ClusterVersion = "clusterVersion"
	AuthEnabled    = "authEnabled"
)

// Records of bucket meta.
const (
	MetaConsistentIndex  = "consistent_index"
	MetaTerm             = "term"
	MetaScheduledCompact = "scheduledCompactRev"
	MetaFinishedCompact  = "finishedCompactRev"
	MetaStorageVersion   = "storageVersion"
)
