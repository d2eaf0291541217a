package boltfile

import (
	"fmt"
	"io"
)

// pageWriter appends pages to a database.
type pageWriter struct {
	w        io.WriterAt
	pageSize int64
	next     Pgid // first page number that was never used
}

// append writes a page of that type, with as many overflow pages as its data
// needs, and returns its number. It fills in the header, the first bytes of page.
func (p *pageWriter) append(flags uint16, count int, page []byte) (Pgid, error) {
	id := p.next
	n := pagesFor(int64(len(page)), p.pageSize)
	page = append(page, make([]byte, n*p.pageSize-int64(len(page)))...)
	putHeader(page, header{id: id, flags: flags, count: uint16(count), overflow: uint32(n - 1)})
	if err := writeFull(p.w, page, int64(id)*p.pageSize); err != nil {
		return 0, fmt.Errorf("write page %d: %w", id, err)
	}
	p.next += Pgid(n)
	return id, nil
}

// pagesFor returns the number of pages that hold size bytes.
func pagesFor(size, pageSize int64) int64 { return (size + pageSize - 1) / pageSize }

// writeFull writes all of p at off.
func writeFull(w io.WriterAt, p []byte, off int64) error {
	n, err := w.WriteAt(p, off)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}

func putHeader(b []byte, h header) {
	order.PutUint64(b, uint64(h.id))
	order.PutUint16(b[8:], h.flags)
	order.PutUint16(b[10:], h.count)
	order.PutUint32(b[12:], h.overflow)
}
