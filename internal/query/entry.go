package query

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/keyspace"
)

// entry is a record of the key space. It is valid until the visitor returns.
type entry struct {
	keyspace.Record
	revision keyspace.Revision
	key      []byte // of the bucket: the revision
	value    []byte // of the bucket: the KeyValue; nil if it is large
	// large is the KeyValue if it is too large to be held in memory. Record.Value
	// is empty then.
	large *io.SectionReader
}

// maxKey and maxRecord bound a key and a KeyValue that are read into memory, in
// bytes. etcd refuses requests of more than 1.5 MiB unless it is configured
// otherwise, and gRPC messages of more than 2 GiB.
const (
	maxKey    = 64 << 20
	maxRecord = 1 << 30
)

// keyValue returns a KeyValue with memory of its own.
func (e *entry) keyValue() (*mvccpb.KeyValue, error) {
	if e.large != nil {
		if e.large.Size() > maxRecord {
			return nil, fmt.Errorf("%w: revision %v: record of %d bytes", fault.ErrCorrupt, e.revision, e.large.Size())
		}
		b := make([]byte, e.large.Size()) // which the file had when it was opened
		if _, err := io.ReadFull(io.NewSectionReader(e.large, 0, e.large.Size()), b); err != nil {
			return nil, err
		}
		rec, err := keyspace.ParseRecord(b)
		if err != nil {
			return nil, fmt.Errorf("revision %v: %w", e.revision, err)
		}
		return newKeyValue(rec), nil
	}
	rec := e.Record
	rec.Key, rec.Value = bytes.Clone(rec.Key), bytes.Clone(rec.Value)
	return newKeyValue(rec), nil
}

// size is that of the KeyValue in bytes.
func (e *entry) size() int64 {
	if e.large != nil {
		return e.large.Size()
	}
	return int64(len(e.value))
}

// recordSeed is the same for all databases, so that their records can be compared.
var recordSeed = maphash.MakeSeed()

// fingerprint is one of the KeyValue.
func (e *entry) fingerprint() (uint64, error) {
	var h maphash.Hash
	h.SetSeed(recordSeed)
	if e.large == nil {
		_, _ = h.Write(e.value) // never fails
		return h.Sum64(), nil
	}
	_, err := io.Copy(&h, io.NewSectionReader(e.large, 0, e.large.Size()))
	return h.Sum64(), err
}

// newKeyValue makes a KeyValue of a record, with its memory. An empty field is nil,
// as it is when protobuf decodes a message without it.
func newKeyValue(r keyspace.Record) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{
		Key: orNil(r.Key), Value: orNil(r.Value),
		CreateRevision: r.CreateRevision, ModRevision: r.ModRevision, Version: r.Version, Lease: r.Lease,
	}
}

func orNil(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// entries is a visitor of bucket "key" that shows each record in turn.
type entries struct {
	each func(*entry) error
	done func() error // nil: nothing
	e    entry
}

func (v *entries) Leaf(l *boltfile.Leaf) error {
	if l.Buckets > 0 {
		return fmt.Errorf("%w: page %d: a bucket where a record should be", fault.ErrCorrupt, l.Page())
	}
	for i := range l.Len() {
		if err := v.element(l, i); err != nil {
			return err
		}
	}
	return nil
}

func (v *entries) element(l *boltfile.Leaf, i int) error {
	err := v.small(l.Key(i), l.Value(i))
	if errors.Is(err, fault.ErrCorrupt) {
		err = fmt.Errorf("page %d, element %d: %w", l.Page(), i, err)
	}
	return err
}

func (v *entries) small(key, value []byte) (err error) {
	v.e = entry{key: key, value: value}
	if v.e.revision, err = keyspace.ParseRevision(key); err != nil {
		return err
	}
	if v.e.Record, err = keyspace.ParseRecord(value); err != nil {
		return fmt.Errorf("revision %v: %w", v.e.revision, err)
	}
	return v.each(&v.e)
}

func (v *entries) Large(page boltfile.Pgid, key []byte, value *io.SectionReader) (err error) {
	if value == nil {
		return fmt.Errorf("%w: page %d: a bucket where a record should be", fault.ErrCorrupt, page)
	}
	v.e = entry{key: key, large: value}
	if v.e.revision, err = keyspace.ParseRevision(key); err != nil {
		return fmt.Errorf("page %d: %w", page, err)
	}
	var name limitedBuffer
	v.e.Record, err = keyspace.ReadRecord(io.NewSectionReader(value, 0, value.Size()), value.Size(), func() io.Writer {
		name = limitedBuffer{}
		return &name
	})
	if err != nil {
		return fmt.Errorf("page %d: revision %v: %w", page, v.e.revision, err)
	}
	v.e.Record.Key = name.key
	return v.each(&v.e)
}

func (v *entries) Done() error {
	if v.done == nil {
		return nil
	}
	return v.done()
}

// limitedBuffer holds a key. It is no bytes.Buffer, whose ReadFrom has no limit.
type limitedBuffer struct{ key []byte }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if len(b.key)+len(p) > maxKey {
		return 0, fmt.Errorf("%w: key of more than %d bytes", fault.ErrCorrupt, maxKey)
	}
	b.key = append(b.key, p...)
	return len(p), nil
}

// errStop ends a walk that has seen enough.
var errStop = errors.New("stop")

// read returns the record of a revision.
func (db *Database) read(ctx context.Context, r keyspace.Revision) (*mvccpb.KeyValue, error) {
	kvs := make([]*mvccpb.KeyValue, 1)
	err := db.readSorted(ctx, []keyspace.Revision{r}, func(_ int, kv *mvccpb.KeyValue) { kvs[0] = kv })
	return kvs[0], err
}

// readSorted returns the records of revisions, which are in order.
func (db *Database) readSorted(ctx context.Context, revisions []keyspace.Revision, add func(i int, kv *mvccpb.KeyValue)) error {
	r := &recordReader{add: add}
	for _, revision := range revisions {
		r.keys = append(r.keys, revision.Key())
	}
	if err := db.records.Lookup(ctx, r.keys, r); err != nil {
		return err
	}
	if r.found != len(revisions) {
		return fmt.Errorf("%w: the file changes while it is read: %d of %d records are no longer there",
			fault.ErrCorrupt, len(revisions)-r.found, len(revisions))
	}
	return nil
}

// recordReader reads the records that a look-up finds.
type recordReader struct {
	entries
	keys  [][]byte
	add   func(i int, kv *mvccpb.KeyValue)
	found int
}

func (r *recordReader) read(i int) func(*entry) error {
	return func(e *entry) error {
		kv, err := e.keyValue()
		if err == nil {
			r.add(i, kv)
			r.found++
		}
		return err
	}
}

// Element implements [boltfile.Found].
func (r *recordReader) Element(i int, l *boltfile.Leaf, at int) error {
	if l.IsBucket(at) {
		return fmt.Errorf("%w: page %d: a bucket where a record should be", fault.ErrCorrupt, l.Page())
	}
	r.each = r.read(i)
	return r.element(l, at)
}

// LargeElement implements [boltfile.Found].
func (r *recordReader) LargeElement(i int, page boltfile.Pgid, key []byte, value *io.SectionReader) error {
	r.each = r.read(i)
	return r.Large(page, key, value)
}

// latest returns the latest record of a key, nil if the key is not alive.
func (db *Database) latest(ctx context.Context, key []byte) (*mvccpb.KeyValue, error) {
	piece, alive := db.Index.Piece(db.Index.Fingerprint(key))
	if !alive {
		return nil, nil
	}
	var last keyspace.Revision
	found := false
	err := db.records.Visit(ctx, []int{piece}, boltfile.Options{Workers: 1, Visit: func(boltfile.Bucket, int) boltfile.Visitor {
		return &entries{each: func(e *entry) error {
			if bytes.Equal(e.Key, key) {
				last, found = e.revision, true
			}
			return nil
		}}
	}})
	if err != nil || !found || last.Tombstone {
		return nil, err
	}
	return db.read(ctx, last)
}
