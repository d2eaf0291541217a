package boltfile

import (
	"bytes"
	"context"
	"io"
)

// largeLeaf is leafPage for a leaf that is too large for memory: it holds the table
// and one key at a time, and passes the values as parts of the file.
func (w *worker) largeLeaf(ref child, h header, v Visitor) error {
	off := int64(ref.id) * w.db.pageSize
	lay, err := startLayout(ref.id, int(h.count), (int64(h.overflow)+1)*w.db.pageSize)
	if err != nil {
		return err
	}
	table, err := w.window.bytes(off, lay.next, lay.next)
	if err != nil {
		return err
	}
	table = bytes.Clone(table)
	var run int64 // bytes of small elements to read together
	var previous []byte
	for i := range int(h.count) {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		e := element(table, i)
		start := off + lay.next
		if err := lay.element(i, int64(e.at), int64(e.pos), int64(e.keySize), int64(e.valueSize)); err != nil {
			return err
		}
		if run <= 0 {
			run = smallFrom(table, i, int(h.count))
		}
		key, value, err := w.largeElement(start, int64(e.keySize), int64(e.valueSize), run)
		if err != nil {
			return err
		}
		run -= int64(e.keySize) + int64(e.valueSize)
		low := ref.low
		if i > 0 {
			low = nil
			if bytes.Compare(previous, key) >= 0 {
				return corrupt(ref.id, "element %d: key %x does not follow %x", i, clip(key), clip(previous))
			}
		}
		if err := checkRange(ref.id, key, key, low, ref.high); err != nil {
			return err
		}
		previous = key

		if e.flags == elementIsBucket {
			if err := w.largeBucket(value, ref.id, i); err != nil {
				return err
			}
			value = nil
		} else if e.flags != 0 {
			return corrupt(ref.id, "element %d: flags %#x", i, e.flags)
		}
		if err := v.Large(ref.id, key, value); err != nil {
			return err
		}
	}
	return lay.finish(h.overflow, w.db.pageSize)
}

// smallFrom returns the size of the elements from i on that fit into a window
// together, in bytes.
func smallFrom(table []byte, i, count int) int64 {
	var sum int64
	for ; i < count; i++ {
		e := element(table, i)
		size := int64(e.keySize) + int64(e.valueSize)
		if sum+size > windowSize {
			break
		}
		sum += size
	}
	return sum
}

// largeElement returns the key of an element of a leaf that is too large for
// memory, and a reader of its value. It reads small elements through the window, of
// which it fills ahead bytes: a leaf can have 65,535 of them.
func (w *worker) largeElement(off, keySize, valueSize, ahead int64) (key []byte, value *io.SectionReader, err error) {
	if keySize+valueSize <= windowSize {
		b, err := w.window.bytes(off, keySize+valueSize, ahead)
		if err != nil {
			return nil, nil, err
		}
		return bytes.Clone(b[:keySize]), io.NewSectionReader(bytes.NewReader(b[keySize:]), 0, valueSize), nil
	}
	key = make([]byte, keySize)
	if err := readFull(w.db.r, key, off); err != nil {
		return nil, nil, err
	}
	w.window.counted(keySize + valueSize)
	return key, io.NewSectionReader(fullReader{w.ctx, w.db.r}, off+keySize, valueSize), nil
}

// fullReader returns a *ShortError if the file ends before the bytes that it reads.
// It ends with the context.
type fullReader struct {
	ctx context.Context
	r   io.ReaderAt
}

func (f fullReader) ReadAt(p []byte, off int64) (int, error) {
	if err := f.ctx.Err(); err != nil {
		return 0, err
	}
	if err := readFull(f.r, p, off); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (w *worker) largeBucket(value *io.SectionReader, id Pgid, i int) error {
	if value.Size() > bucketHeaderSize+maxPageSize {
		return corrupt(id, "element %d: bucket of %d bytes", i, value.Size())
	}
	b := make([]byte, value.Size())
	if err := readFull(value, b, 0); err != nil {
		return err
	}
	return w.nestedBucket(b, id, i)
}
