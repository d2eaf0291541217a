package boltfile

import (
	"bytes"
	"io"
)

// Record is an entry of a bucket.
type Record struct{ Key, Value []byte }

// maxRecords bounds the bytes in a list of records, and the memory of the list. The
// buckets of an etcd that a restore replaces hold some hundred bytes for each
// member that there ever was.
const maxRecords = 16 << 20

// recordOverhead is the memory of a Record in a list, besides its bytes.
const recordOverhead = 48

// recordList is the visitor that collects the records of one bucket.
type recordList struct {
	noVisitor
	bucket  string
	records []Record
	room    int64
}

func (l *recordList) Leaf(leaf *Leaf) error {
	for i := range leaf.Len() {
		if leaf.IsBucket(i) {
			return l.nested(leaf.Page(), leaf.Key(i))
		}
		key, value := leaf.Key(i), leaf.Value(i)
		if err := l.reserve(leaf.Page(), int64(len(key)+len(value))); err != nil {
			return err
		}
		l.records = append(l.records, Record{bytes.Clone(key), bytes.Clone(value)})
	}
	return nil
}

func (l *recordList) Large(page Pgid, key []byte, value *io.SectionReader) error {
	if value == nil {
		return l.nested(page, key)
	}
	if err := l.reserve(page, int64(len(key))+value.Size()); err != nil {
		return err
	}
	r := Record{Key: bytes.Clone(key), Value: make([]byte, value.Size())}
	if _, err := io.ReadFull(io.NewSectionReader(value, 0, value.Size()), r.Value); err != nil {
		return err
	}
	l.records = append(l.records, r)
	return nil
}

func (l *recordList) nested(page Pgid, key []byte) error {
	return corrupt(page, "bucket %q: %q is a bucket, not a record", l.bucket, clip(key))
}

func (l *recordList) reserve(page Pgid, n int64) error {
	if l.room += n + recordOverhead; l.room > maxRecords {
		return corrupt(page, "bucket %q: more than %d MiB, too large to replace", l.bucket, maxRecords>>20)
	}
	return nil
}
