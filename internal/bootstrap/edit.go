package bootstrap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// The buckets of an etcd database that a restore looks at.
var (
	bucketAlarm          = []byte("alarm")
	bucketCluster        = []byte("cluster")
	bucketKey            = []byte("key")
	bucketMembers        = []byte("members")
	bucketMembersRemoved = []byte("members_removed")
	bucketMeta           = []byte("meta")
)

// The records of bucket meta that a restore sets.
var (
	metaConsistentIndex  = []byte("consistent_index")
	metaTerm             = []byte("term")
	metaScheduledCompact = []byte("scheduledCompactRev")
)

// Rewrites says whether Edit empties or writes to the bucket of that name,
// other than the key space.
func Rewrites(bucket string) bool {
	switch bucket {
	case string(bucketAlarm), string(bucketMembers), string(bucketMembersRemoved), string(bucketMeta):
		return true
	}
	return false
}

// Changes are what a restore changes in a database besides its membership.
type Changes struct {
	// RevisionBump, unless zero, is added to the latest revision; the sum
	// becomes the latest revision and is marked as compacted.
	RevisionBump uint64
	// DropAlarms removes all alarms.
	DropAlarms bool
}

// MalformedError reports content that no etcd writes.
type MalformedError struct {
	Bucket string
	Reason string
}

func (e *MalformedError) Error() string {
	return fmt.Sprintf("bucket %q: %s", e.Bucket, e.Reason)
}

// OverflowError reports a revision bump for which there is no room in an int64.
type OverflowError struct {
	Latest int64
	Bump   uint64
}

func (e *OverflowError) Error() string {
	return fmt.Sprintf("latest revision %d plus bump %d is more than %d", e.Latest, e.Bump, int64(math.MaxInt64))
}

// Edit puts the cluster into the database, in place of the one it came from,
// with the other changes. The structure of the file must have been checked
// before; its records need not be: where they are not those of an etcd, the
// error is a [*MalformedError]. A bump with no room for it is an
// [*OverflowError]. After an error the transaction must be rolled back; it is
// the caller who commits.
//
// It returns the revision that is the latest now, or 0 without a bump.
//
// The conf state in bucket meta stays that of the old cluster, as with etcdutl:
// a server takes its own from the raft snapshot, and overwrites the record with
// the next change of membership.
func (c *Cluster) Edit(tx *bbolt.Tx, ch Changes) (revision int64, err error) {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return 0, &MalformedError{Bucket: string(bucketMeta), Reason: "missing; this is not the database of an etcd v3"}
	}
	if err := c.replaceMembers(tx); err != nil {
		return 0, err
	}
	if ch.RevisionBump > 0 {
		if revision, err = bumpRevision(tx, ch.RevisionBump); err != nil {
			return 0, err
		}
		if err := put(meta, bucketMeta, metaScheduledCompact, revisionKey(revision)); err != nil {
			return 0, err
		}
	}
	if ch.DropAlarms && tx.Bucket(bucketAlarm) != nil {
		if _, err := emptyBucket(tx, bucketAlarm); err != nil {
			return 0, err
		}
	}
	if err := put(meta, bucketMeta, metaConsistentIndex, bigEndian(c.Index())); err != nil {
		return 0, err
	}
	if err := put(meta, bucketMeta, metaTerm, bigEndian(c.Term())); err != nil {
		return 0, err
	}
	return revision, nil
}

// replaceMembers leaves the new members in bucket members, bucket
// members_removed empty, and bucket cluster, which holds the cluster version,
// as it was.
func (c *Cluster) replaceMembers(tx *bbolt.Tx) error {
	if _, err := createBucket(tx, bucketCluster); err != nil {
		return err
	}
	if _, err := emptyBucket(tx, bucketMembersRemoved); err != nil {
		return err
	}
	members, err := emptyBucket(tx, bucketMembers)
	if err != nil {
		return err
	}
	for i, m := range c.members {
		if err := put(members, bucketMembers, []byte(m.ID.String()), c.records[i]); err != nil {
			return err
		}
	}
	return nil
}

// bumpRevision adds an empty record with the bumped revision, which is all that
// etcd needs to count on from there.
func bumpRevision(tx *bbolt.Tx, bump uint64) (int64, error) {
	keys, err := createBucket(tx, bucketKey)
	if err != nil {
		return 0, err
	}
	latest, err := latestRevision(keys)
	if err != nil {
		return 0, err
	}
	if bump > uint64(math.MaxInt64-latest) {
		return 0, &OverflowError{Latest: latest, Bump: bump}
	}
	bumped := latest + int64(bump)
	return bumped, put(keys, bucketKey, revisionKey(bumped), []byte{})
}

// latestRevision returns the main revision of the last record, 0 if there is
// none. Revision keys sort by revision, tombstones among them.
func latestRevision(keys *bbolt.Bucket) (int64, error) {
	k, v := keys.Cursor().Last()
	if k == nil {
		return 0, nil
	}
	tombstone := len(k) == 18 && k[17] == 't'
	if v == nil || len(k) != 17 && !tombstone || k[8] != '_' || k[0] > 0x7f || k[9] > 0x7f {
		return 0, &MalformedError{Bucket: string(bucketKey), Reason: fmt.Sprintf("last record %x is not a revision", k)}
	}
	return int64(binary.BigEndian.Uint64(k)), nil
}

// revisionKey returns the key of the first change in a revision.
func revisionKey(main int64) []byte {
	k := make([]byte, 17)
	binary.BigEndian.PutUint64(k, uint64(main))
	k[8] = '_'
	return k
}

func bigEndian(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// emptyBucket leaves the bucket without records, and makes it if need be.
func emptyBucket(tx *bbolt.Tx, name []byte) (*bbolt.Bucket, error) {
	if b := tx.Bucket(name); b != nil {
		err := b.ForEachBucket(func(k []byte) error {
			return &MalformedError{Bucket: string(name), Reason: fmt.Sprintf("%q is a bucket, not a record", k)}
		})
		if err != nil {
			return nil, err
		}
		if err := tx.DeleteBucket(name); err != nil {
			return nil, fmt.Errorf("empty bucket %q: %w", name, err)
		}
	}
	return createBucket(tx, name)
}

func createBucket(tx *bbolt.Tx, name []byte) (*bbolt.Bucket, error) {
	b, err := tx.CreateBucketIfNotExists(name)
	if errors.Is(err, berrors.ErrIncompatibleValue) {
		return nil, &MalformedError{Bucket: string(name), Reason: "a record, not a bucket"}
	}
	if err != nil {
		return nil, fmt.Errorf("create bucket %q: %w", name, err)
	}
	return b, nil
}

// put is b.Put with the errors of this package; name is that of b.
func put(b *bbolt.Bucket, name, k, v []byte) error {
	err := b.Put(k, v)
	if errors.Is(err, berrors.ErrIncompatibleValue) {
		return &MalformedError{Bucket: string(name), Reason: fmt.Sprintf("%q is a bucket, not a record", k)}
	}
	if err != nil {
		return fmt.Errorf("put %q in bucket %q: %w", k, name, err)
	}
	return nil
}
