package inspect

import (
	"errors"
	"fmt"
	"io"

	"github.com/coreos/go-semver/semver"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/crc32c"
	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/keyspace"
	"etcd.example/snapshot/internal/schema"
)

// pieceVisitor sums the entries of one piece of a bucket.
type pieceVisitor struct {
	walk    *walk
	number  int
	sum     uint32
	size    int64 // bytes summed
	entries int64

	// In the key space:
	feed        *keyspace.Feed
	found       bool // at least one record
	first, last keyspace.Revision
	leased      bool // at least one record belongs to a lease
}

func (v *pieceVisitor) add(p []byte) {
	v.sum = crc32c.Update(v.sum, p)
	v.size += int64(len(p))
}

func (v *pieceVisitor) Leaf(l *boltfile.Leaf) error {
	v.entries += int64(l.Len())
	if l.Buckets == 0 {
		v.add(l.Data())
		return nil
	}
	for i := range l.Len() { // the hash has only the name of a nested bucket
		v.add(l.Key(i))
		if !l.IsBucket(i) {
			v.add(l.Value(i))
		}
	}
	return nil
}

func (v *pieceVisitor) Large(_ boltfile.Pgid, key []byte, value *io.SectionReader) error {
	v.entries++
	v.add(key)
	if value == nil { // the hash has only the name of a nested bucket
		return nil
	}
	buf := make([]byte, min(value.Size(), largeBuffer)+1)
	for {
		n, err := value.Read(buf)
		v.add(buf[:n])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// largeBuffer is how many bytes of a large value are read at a time.
const largeBuffer = 256 << 10

func (v *pieceVisitor) Done() error { return nil }

// metaVisitor picks out the storage version.
type metaVisitor struct{ *pieceVisitor }

func (v *metaVisitor) Leaf(l *boltfile.Leaf) error {
	for i := range l.Len() {
		if !l.IsBucket(i) {
			v.record(l.Key(i), l.Value(i))
		}
	}
	return v.pieceVisitor.Leaf(l)
}

func (v *metaVisitor) Large(page boltfile.Pgid, key []byte, value *io.SectionReader) error {
	if value != nil && value.Size() <= maxVersion {
		b := make([]byte, value.Size())
		if _, err := io.ReadFull(io.NewSectionReader(value, 0, value.Size()), b); err != nil {
			return err
		}
		v.record(key, b)
	}
	return v.pieceVisitor.Large(page, key, value)
}

// maxVersion is how many bytes a version may have on a page that is too large to be
// held in memory.
const maxVersion = 1 << 10

func (v *metaVisitor) record(key, value []byte) {
	if string(key) != schema.MetaStorageVersion {
		return
	}
	// Like etcd, ignore what is not a version.
	if version, err := semver.NewVersion(string(value)); err == nil {
		v.walk.version = version.String()
	}
}

// keyVisitor reads revision keys and records.
type keyVisitor struct{ *pieceVisitor }

func (v *keyVisitor) Leaf(l *boltfile.Leaf) error {
	if l.Buckets > 0 {
		return fmt.Errorf("%w: page %d: a bucket where a record should be", fault.ErrCorrupt, l.Page())
	}
	for i := range l.Len() {
		if err := v.record(l.Key(i), l.Value(i)); err != nil {
			return fmt.Errorf("page %d, element %d: %w", l.Page(), i, err)
		}
	}
	return v.pieceVisitor.Leaf(l)
}

func (v *keyVisitor) record(key, value []byte) error {
	revision, err := v.revision(key)
	if err != nil {
		return err
	}
	rec, err := keyspace.ParseRecord(value)
	if err != nil {
		return fmt.Errorf("revision %v: %w", revision, err)
	}
	v.leased = v.leased || rec.Lease != 0
	v.feed.Add(v.walk.counter.Fingerprint(rec.Key), revision.Tombstone)
	return v.agree(revision, rec.ModRevision, len(value) == 0)
}

func (v *keyVisitor) Large(_ boltfile.Pgid, key []byte, value *io.SectionReader) error {
	if value == nil {
		return fmt.Errorf("%w: key %x: a bucket where a record should be", fault.ErrCorrupt, key[:min(len(key), 32)])
	}
	revision, err := v.revision(key)
	if err != nil {
		return err
	}
	v.entries++
	v.add(key)
	hash := v.walk.counter.NewKeyHash()
	rec, err := keyspace.ReadRecord(io.TeeReader(value, sum{v.pieceVisitor}), value.Size(), func() io.Writer {
		hash = v.walk.counter.NewKeyHash()
		return hash
	})
	if err != nil {
		return fmt.Errorf("revision %v: %w", revision, err)
	}
	v.leased = v.leased || rec.Lease != 0
	v.feed.Add(hash.Fingerprint(), revision.Tombstone)
	return v.agree(revision, rec.ModRevision, value.Size() == 0)
}

// sum is a writer that sums the bytes of entries.
type sum struct{ v *pieceVisitor }

func (s sum) Write(p []byte) (int, error) {
	s.v.add(p)
	return len(p), nil
}

// revision reads a revision key and notes it as the last one so far.
func (v *keyVisitor) revision(key []byte) (keyspace.Revision, error) {
	revision, err := keyspace.ParseRevision(key)
	if err != nil {
		return revision, err
	}
	if !v.found {
		v.found, v.first = true, revision
	} else if v.walk.strict && v.last.Compare(revision) >= 0 {
		return revision, fmt.Errorf("%w: revision %v follows %v", fault.ErrCorrupt, revision, v.last)
	}
	v.last = revision
	return revision, nil
}

// agree checks that a record has the mod revision of its key. A tombstone has none,
// and neither has the empty record of a revision bump.
func (v *keyVisitor) agree(revision keyspace.Revision, modRevision int64, empty bool) error {
	if !v.walk.strict || revision.Tombstone || empty || modRevision == revision.Main {
		return nil
	}
	return fmt.Errorf("%w: revision %v: got mod revision %d, want %d", fault.ErrCorrupt, revision, modRevision, revision.Main)
}

func (v *keyVisitor) Done() error {
	v.feed.End()
	v.walk.mu.Lock()
	defer v.walk.mu.Unlock()
	v.walk.feeds = append(v.walk.feeds, v.feed)
	v.feed = nil
	return nil
}
