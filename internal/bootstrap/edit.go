package bootstrap

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/keyspace"
	"etcd.example/snapshot/internal/schema"
)

// Changes lists what a restore changes in a database besides the membership.
type Changes struct {
	// RevisionBump, unless zero, is added to the latest revision. The sum
	// becomes the latest revision, and is marked as compacted.
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
	return fmt.Sprintf("%v: bucket %q: %s", fault.ErrCorrupt, e.Bucket, e.Reason)
}

// Unwrap returns [fault.ErrCorrupt].
func (e *MalformedError) Unwrap() error { return fault.ErrCorrupt }

// OverflowError reports a revision bump whose sum exceeds an int64.
type OverflowError struct {
	Latest int64
	Bump   uint64
}

func (e *OverflowError) Error() string {
	return fmt.Sprintf("%v: latest revision %d plus bump %d is more than %d", fault.ErrConfig, e.Latest, e.Bump, int64(math.MaxInt64))
}

// Unwrap returns [fault.ErrConfig].
func (e *OverflowError) Unwrap() error { return fault.ErrConfig }

// Edit replaces the old cluster in the database by this one, and makes the other
// changes. If the content is not that of an etcd, the error is a [*MalformedError]
// or a [*boltfile.CorruptError]. A bump that does not fit is an [*OverflowError].
// The caller commits, and must not do so after an error.
//
// Edit returns the new latest revision, or 0 without a bump.
//
// The conf state in bucket meta stays that of the old cluster, as with etcdutl:
// a server takes its own from the raft snapshot, and overwrites the record with
// the next change of membership.
func (c *Cluster) Edit(e *boltfile.Edit, ch Changes) (revision int64, err error) {
	if !e.Has(schema.BucketMeta) {
		return 0, &MalformedError{Bucket: schema.BucketMeta, Reason: "missing; this is not the database of an etcd v3"}
	}
	meta, err := e.Records(schema.BucketMeta)
	if err != nil {
		return 0, err
	}
	if err := c.replaceMembers(e); err != nil {
		return 0, err
	}
	if ch.RevisionBump > 0 {
		if revision, err = bumpRevision(e, ch.RevisionBump); err != nil {
			return 0, err
		}
		meta = set(meta, schema.MetaScheduledCompact, keyspace.Revision{Main: revision}.Key())
	}
	if ch.DropAlarms && e.Has(schema.BucketAlarm) {
		if err := replace(e, schema.BucketAlarm, nil); err != nil {
			return 0, err
		}
	}
	meta = set(meta, schema.MetaConsistentIndex, bigEndian(c.Index()))
	meta = set(meta, schema.MetaTerm, bigEndian(c.Term()))
	return revision, e.Replace(schema.BucketMeta, meta)
}

// replaceMembers puts the new members into bucket members and empties bucket
// members_removed. It does not change bucket cluster, which holds the cluster
// version.
func (c *Cluster) replaceMembers(e *boltfile.Edit) error {
	if !e.Has(schema.BucketCluster) {
		if err := e.Replace(schema.BucketCluster, nil); err != nil {
			return err
		}
	}
	if err := replace(e, schema.BucketMembersRemoved, nil); err != nil {
		return err
	}
	var members []boltfile.Record
	for i, m := range c.members {
		members = set(members, m.ID.String(), c.records[i])
	}
	return replace(e, schema.BucketMembers, members)
}

// replace is e.Replace for a bucket that may hold only records.
func replace(e *boltfile.Edit, bucket string, records []boltfile.Record) error {
	if _, err := e.Records(bucket); err != nil {
		return err
	}
	return e.Replace(bucket, records)
}

// set puts a record into a list in key order, and replaces one with the same key.
func set(records []boltfile.Record, key string, value []byte) []boltfile.Record {
	r := boltfile.Record{Key: []byte(key), Value: value}
	at, found := slices.BinarySearchFunc(records, r.Key, func(r boltfile.Record, key []byte) int { return bytes.Compare(r.Key, key) })
	if found {
		records[at] = r
		return records
	}
	return slices.Insert(records, at, r)
}

// bumpRevision adds an empty record with the bumped revision: etcd continues from
// the last record.
func bumpRevision(e *boltfile.Edit, bump uint64) (int64, error) {
	last, err := e.LastKey(schema.BucketKey)
	if err != nil {
		return 0, err
	}
	bumped, err := addBump(last, bump)
	if err != nil {
		return 0, err
	}
	return bumped, e.Append(schema.BucketKey, boltfile.Record{Key: keyspace.Revision{Main: bumped}.Key()})
}

// CheckBump returns an [*OverflowError] if Edit would. It reads only a few pages,
// and does not check that the database is sound.
func (ch Changes) CheckBump(ctx context.Context, db *boltfile.DB) error {
	if ch.RevisionBump == 0 {
		return nil
	}
	last, err := db.LastKey(ctx, schema.BucketKey)
	if err != nil {
		return err
	}
	_, err = addBump(last, ch.RevisionBump)
	return err
}

// addBump adds to the revision of the last record, 0 if there is none. Revision
// keys sort by revision, tombstones among them.
func addBump(last []byte, bump uint64) (int64, error) {
	var latest keyspace.Revision
	if last != nil {
		var err error
		if latest, err = keyspace.ParseRevision(last); err != nil {
			return 0, &MalformedError{Bucket: schema.BucketKey, Reason: fmt.Sprintf("last record %x is not a revision", last)}
		}
	}
	if bump > uint64(math.MaxInt64-latest.Main) {
		return 0, &OverflowError{Latest: latest.Main, Bump: bump}
	}
	return latest.Main + int64(bump), nil
}

func bigEndian(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
