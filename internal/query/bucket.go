package query

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/fault"
)

// maxSmall bounds a record of another bucket than "key", in bytes: a page of them is
// held in memory up to this size.
const maxSmall = 4 << 20

// small is a visitor that shows the records of a bucket other than "key".
type small struct {
	each func(key, value []byte) error
}

func (v small) Leaf(l *boltfile.Leaf) error {
	for i := range l.Len() {
		if l.IsBucket(i) {
			return fmt.Errorf("%w: page %d, element %d: a bucket where a record should be", fault.ErrCorrupt, l.Page(), i)
		}
		if err := v.each(l.Key(i), l.Value(i)); err != nil {
			return err
		}
	}
	return nil
}

func (v small) Large(page boltfile.Pgid, key []byte, value *io.SectionReader) error {
	if value == nil || value.Size() > maxSmall {
		return fmt.Errorf("%w: page %d: a bucket or a record of more than %d bytes", fault.ErrCorrupt, page, maxSmall)
	}
	b, err := io.ReadAll(value)
	if err != nil {
		return err
	}
	return v.each(key, b)
}

func (small) Done() error { return nil }

// bucket shows the records of a bucket other than "key" to each, in key order. Key
// and value are valid until it returns.
func (db *Database) bucket(ctx context.Context, name string, each func(key, value []byte) error) error {
	b, ok := db.Bucket(name)
	if !ok {
		return nil
	}
	r, err := db.DB.Reader(ctx, b.Bucket)
	if err != nil {
		return err
	}
	return r.Walk(ctx, nil, small{each})
}

// record returns the value of a record in a bucket other than "key", nil if there is
// none.
func (db *Database) record(ctx context.Context, bucket, name string) ([]byte, error) {
	b, ok := db.Bucket(bucket)
	if !ok {
		return nil, nil
	}
	r, err := db.DB.Reader(ctx, b.Bucket)
	if err != nil {
		return nil, err
	}
	v := &smallValue{}
	err = r.Lookup(ctx, [][]byte{[]byte(name)}, v)
	return v.value, err
}

// smallValue takes the value that a look-up finds.
type smallValue struct{ value []byte }

// Element implements [boltfile.Found].
func (v *smallValue) Element(_ int, l *boltfile.Leaf, at int) error {
	if !l.IsBucket(at) {
		v.value = bytes.Clone(l.Value(at))
	}
	return nil
}

// LargeElement implements [boltfile.Found].
func (v *smallValue) LargeElement(_ int, page boltfile.Pgid, key []byte, value *io.SectionReader) error {
	return small{func(_, b []byte) error { v.value = b; return nil }}.Large(page, key, value)
}
