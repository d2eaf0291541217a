package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/coreos/go-semver/semver"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/crc32c"
	"etcd.example/snapshot/internal/keyspace"
)

// inspection walks a database once: it checks the structure, sums all entries,
// and reads the key space and the storage version on the way.
type inspection struct {
	strict  bool // every record must agree with its revision key
	counter *keyspace.Counter

	mu      sync.Mutex
	pieces  [][]*pieceVisitor // by bucket and piece
	feeds   []*keyspace.Feed  // idle
	version string
}

// Buckets and keys of etcd's schema that have a meaning here.
const (
	bucketKey         = "key"
	bucketMeta        = "meta"
	keyStorageVersion = "storageVersion"
)

// inspect reads the database in the first size bytes of r. With strict it also
// checks that every record of the key space decodes and agrees with its key.
func inspect(ctx context.Context, r io.ReaderAt, size int64, strict bool, scan boltfile.Options) (Status, error) {
	db, err := boltfile.Open(r, size)
	if err != nil {
		return Status{}, asCorrupt(err)
	}
	in := &inspection{strict: strict, counter: keyspace.NewCounter(ctx)}
	defer in.counter.Close()

	scan.Visit = in.visit
	_, buckets, err := db.Scan(ctx, scan)
	if err != nil {
		return Status{}, asCorrupt(err)
	}
	if strict && !slices.ContainsFunc(buckets, func(b boltfile.Bucket) bool { return b.Name == bucketMeta }) {
		return Status{}, fmt.Errorf("%w: page %d: bucket %q is missing from the top level; this is not the database of an etcd v3",
			ErrCorrupt, db.Root(), bucketMeta)
	}
	revision, err := in.latest(buckets)
	if err != nil {
		return Status{}, asCorrupt(err)
	}
	live, err := in.counter.Live()
	if err != nil {
		return Status{}, err
	}
	return Status{
		Hash:      in.hash(buckets),
		Revision:  revision,
		TotalKey:  live,
		TotalSize: db.Size(),
		Version:   in.version,
	}, nil
}

// visit makes the visitor of a piece. It is called by several goroutines.
func (in *inspection) visit(b boltfile.Bucket, piece int) boltfile.Visitor {
	v := &pieceVisitor{in: in, number: piece}
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.pieces) <= b.Index {
		in.pieces = append(in.pieces, nil)
	}
	for len(in.pieces[b.Index]) <= piece {
		in.pieces[b.Index] = append(in.pieces[b.Index], nil)
	}
	in.pieces[b.Index][piece] = v

	switch b.Name {
	case bucketMeta:
		return &metaVisitor{v}
	case bucketKey:
		if last := len(in.feeds) - 1; last >= 0 {
			v.feed, in.feeds = in.feeds[last], in.feeds[:last]
		} else {
			v.feed = in.counter.NewFeed()
		}
		v.feed.Begin(piece)
		return &keyVisitor{v}
	}
	return v
}

// hash is the CRC-32C over the name and the entries of each bucket in turn.
func (in *inspection) hash(buckets []boltfile.Bucket) uint32 {
	var sum uint32
	for i, b := range buckets {
		sum = crc32c.Update(sum, []byte(b.Name))
		for _, v := range in.pieces[i] {
			sum = crc32c.Combine(sum, v.sum, v.size)
		}
	}
	return sum
}

// latest is the main revision of the last entry of the key space. With strict
// it checks that revisions rise from piece to piece; within each they were.
func (in *inspection) latest(buckets []boltfile.Bucket) (int64, error) {
	var last keyspace.Revision
	any := false
	for i, b := range buckets {
		if b.Name != bucketKey {
			continue
		}
		for _, v := range in.pieces[i] {
			if !v.any {
				continue
			}
			if in.strict && any && last.Compare(v.first) >= 0 {
				return 0, fmt.Errorf("%w: revision %v follows %v", ErrCorrupt, v.first, last)
			}
			last, any = v.last, true
		}
	}
	return last.Main, nil
}

// pieceVisitor sums the entries of one piece of a bucket.
type pieceVisitor struct {
	in     *inspection
	number int
	sum    uint32
	size   int64 // bytes summed

	// In the key space:
	feed        *keyspace.Feed
	any         bool
	first, last keyspace.Revision
}

func (v *pieceVisitor) add(p []byte) {
	v.sum = crc32c.Update(v.sum, p)
	v.size += int64(len(p))
}

func (v *pieceVisitor) Leaf(l *boltfile.Leaf) error {
	if l.Buckets == 0 {
		v.add(l.Data())
		return nil
	}
	for i := range l.Len() { // of a nested bucket only the name counts
		v.add(l.Key(i))
		if !l.IsBucket(i) {
			v.add(l.Value(i))
		}
	}
	return nil
}

func (v *pieceVisitor) Large(_ boltfile.Pgid, key []byte, value *io.SectionReader) error {
	v.add(key)
	if value == nil { // of a nested bucket only the name counts
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

// maxVersion is how many bytes a version may have in a page too large to be
// held in memory.
const maxVersion = 1 << 10

func (v *metaVisitor) record(key, value []byte) {
	if string(key) != keyStorageVersion {
		return
	}
	// What is no version counts as none, as etcd has it.
	if version, err := semver.NewVersion(string(value)); err == nil {
		v.in.version = version.String()
	}
}

// keyVisitor reads revision keys and records.
type keyVisitor struct{ *pieceVisitor }

func (v *keyVisitor) Leaf(l *boltfile.Leaf) error {
	if l.Buckets > 0 {
		return fmt.Errorf("%w: page %d: a bucket where a record should be", ErrCorrupt, l.Page())
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
	v.feed.Add(v.in.counter.Fingerprint(rec.Key), revision.Tombstone)
	return v.agree(revision, rec.ModRevision, len(value) == 0)
}

func (v *keyVisitor) Large(_ boltfile.Pgid, key []byte, value *io.SectionReader) error {
	if value == nil {
		return fmt.Errorf("%w: key %x: a bucket where a record should be", ErrCorrupt, key[:min(len(key), 32)])
	}
	revision, err := v.revision(key)
	if err != nil {
		return err
	}
	v.add(key)
	hash := v.in.counter.NewKeyHash()
	modRevision, err := keyspace.ReadRecord(io.TeeReader(value, sum{v.pieceVisitor}), value.Size(), func() io.Writer {
		hash = v.in.counter.NewKeyHash()
		return hash
	})
	if err != nil {
		return fmt.Errorf("revision %v: %w", revision, err)
	}
	v.feed.Add(hash.Fingerprint(), revision.Tombstone)
	return v.agree(revision, modRevision, value.Size() == 0)
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
	if !v.any {
		v.any, v.first = true, revision
	} else if v.in.strict && v.last.Compare(revision) >= 0 {
		return revision, fmt.Errorf("%w: revision %v follows %v", ErrCorrupt, revision, v.last)
	}
	v.last = revision
	return revision, nil
}

// agree checks that a record has the mod revision that its key tells. A
// tombstone has none, and neither has the empty record of a revision bump.
func (v *keyVisitor) agree(revision keyspace.Revision, modRevision int64, empty bool) error {
	if !v.in.strict || revision.Tombstone || empty || modRevision == revision.Main {
		return nil
	}
	return fmt.Errorf("%w: revision %v: got mod revision %d, want %d", ErrCorrupt, revision, modRevision, revision.Main)
}

func (v *keyVisitor) Done() error {
	v.feed.End()
	v.in.mu.Lock()
	defer v.in.mu.Unlock()
	v.in.feeds = append(v.in.feeds, v.feed)
	v.feed = nil
	return nil
}
