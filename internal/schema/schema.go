// Package schema names the buckets of an etcd database, and the records of bucket
// "meta", as etcd's server/storage/schema does.
package schema

// Buckets of the top level.
const (
	BucketAlarm          = "alarm"
	BucketCluster        = "cluster"
	BucketKey            = "key"
	BucketMembers        = "members"
	BucketMembersRemoved = "members_removed"
	BucketMeta           = "meta"
)

// Records of bucket meta.
const (
	MetaConsistentIndex  = "consistent_index"
	MetaTerm             = "term"
	MetaScheduledCompact = "scheduledCompactRev"
	MetaFinishedCompact  = "finishedCompactRev"
	MetaStorageVersion   = "storageVersion"
)
