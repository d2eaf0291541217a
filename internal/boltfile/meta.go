package boltfile

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"
	"math"
)

// Constants of the format, as in bbolt's internal/common.
const (
	magic         = 0xED0CDAED
	formatVersion = 2

	pageHeaderSize   = 16
	elementSize      = 16 // an entry of the table in a branch or leaf page
	bucketHeaderSize = 16
	metaSize         = 64
	metaChecksumAt   = 56 // the checksum covers the bytes of the meta before it

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10

	elementIsBucket = 0x01

	maxKeySize = 32768

	minPageSize = 1 << 10
	maxPageSize = 1 << 16

	metaPages     = 2
	firstDataPage = Pgid(metaPages)
	// maxPages bounds the memory for the bits of all pages, however large a sparse
	// file claims to be. With pages of 4 KiB it is a database of 4 TiB.
	maxPages   = Pgid(1 << 30)
	noFreelist = Pgid(math.MaxUint64)
)

type header struct {
	id       Pgid
	flags    uint16
	count    uint16
	overflow uint32
}

func parseHeader(b []byte) header {
	_ = b[pageHeaderSize-1]
	return header{
		id:       Pgid(order.Uint64(b)),
		flags:    order.Uint16(b[8:]),
		count:    order.Uint16(b[10:]),
		overflow: order.Uint32(b[12:]),
	}
}

type meta struct {
	pageSize  uint32
	root      Pgid
	freelist  Pgid
	highWater Pgid // first page number that was never used
	txid      uint64
}

var (
	errNoMagic  = errors.New("not a bbolt database")
	errVersion  = errors.New("unknown format version")
	errChecksum = errors.New("wrong checksum")
)

// parseMeta parses a meta in the given byte order.
func parseMeta(b []byte, order binary.ByteOrder) (meta, error) {
	_ = b[metaSize-1]
	switch {
	case order.Uint32(b) != magic:
		return meta{}, errNoMagic
	case order.Uint32(b[4:]) != formatVersion:
		return meta{}, errVersion
	}
	sum := fnv.New64a()
	_, _ = sum.Write(b[:metaChecksumAt])
	if order.Uint64(b[metaChecksumAt:]) != sum.Sum64() {
		return meta{}, errChecksum
	}
	return meta{
		pageSize:  order.Uint32(b[8:]),
		root:      Pgid(order.Uint64(b[16:])),
		freelist:  Pgid(order.Uint64(b[32:])),
		highWater: Pgid(order.Uint64(b[40:])),
		txid:      order.Uint64(b[48:]),
	}, nil
}

// DB is an open database. It holds no resources besides the reader.
type DB struct {
	r        io.ReaderAt
	pageSize int64
	meta     meta
	raw      [metaSize]byte // of meta
}

// Open reads the meta pages of the database in the first size bytes of r and
// chooses the valid one with the larger transaction id, as bbolt does. It ignores
// the header of one that is not valid, perhaps lost or torn. It takes the page size
// from the file: 1 KiB to 64 KiB, whatever this machine uses.
//
// It returns a *ByteOrderError if a machine of the other byte order has written
// the database, a *NotDatabaseError if the file is not a bbolt database, a
// *CorruptError if no meta page is valid or the valid one contradicts itself, and a
// *ShortError if the file is shorter than its meta page states.
func Open(r io.ReaderAt, size int64) (*DB, error) {
	if size < 2*minPageSize {
		return nil, tooSmall(r, size)
	}
	db, err := open(r, size, order)
	if none := new(noMetaError); errors.As(err, &none) {
		return nil, notDatabase(r, size, none.first)
	}
	return db, err
}

// noMetaError reports that no meta page is valid in the given byte order.
type noMetaError struct {
	first error // of the first meta page
}

func (e *noMetaError) Error() string { return "no valid meta page" }

// open is Open in the given byte order.
func open(r io.ReaderAt, size int64, order binary.ByteOrder) (*DB, error) {
	var page [2]metaPage
	if err := readFull(r, page[0][:], 0); err != nil {
		return nil, err
	}
	meta0, err0 := page[0].meta(order)
	pageSize := int64(meta0.pageSize)
	if err0 != nil {
		var err error
		if pageSize, err = findSecondMeta(r, size, order); err != nil {
			return nil, err
		}
		if pageSize == 0 {
			return nil, &noMetaError{err0}
		}
	}
	if !validPageSize(pageSize) {
		return nil, corrupt(0, "meta page: page size %d bytes", pageSize)
	}
	if size < 2*pageSize {
		return nil, &ShortError{Size: size, Want: 2 * pageSize}
	}
	if err := readFull(r, page[1][:], pageSize); err != nil {
		return nil, err
	}
	meta1, err1 := page[1].meta(order)
	chosen, at := meta0, Pgid(0)
	if err0 != nil || (err1 == nil && meta1.txid > meta0.txid) {
		chosen, at = meta1, 1
	}
	for i, damaged := range []error{err0, err1} {
		id, flags := Pgid(order.Uint64(page[i][:])), order.Uint16(page[i][8:])
		if damaged == nil && (id != Pgid(i) || flags != flagMeta) {
			return nil, corrupt(Pgid(i), "header of the meta page has number %d and type %#x", id, flags)
		}
	}
	db := &DB{r: r, pageSize: pageSize, meta: chosen, raw: [metaSize]byte(page[at][pageHeaderSize:])}
	if err := db.checkMeta(at, size); err != nil {
		return nil, err
	}
	return db, nil
}

// metaPage is the part of a meta page that has content.
type metaPage [pageHeaderSize + metaSize]byte

func (p *metaPage) meta(order binary.ByteOrder) (meta, error) {
	return parseMeta(p[pageHeaderSize:], order)
}

// findSecondMeta looks for the second meta page if the first does not have the page
// size. It returns 0 if there is none.
func findSecondMeta(r io.ReaderAt, size int64, order binary.ByteOrder) (int64, error) {
	var page metaPage
	for pageSize := int64(minPageSize); pageSize <= maxPageSize && pageSize+int64(len(page)) <= size; pageSize *= 2 {
		if err := readFull(r, page[:], pageSize); err != nil {
			return 0, err
		}
		if m, err := page.meta(order); err == nil && int64(m.pageSize) == pageSize {
			return pageSize, nil
		}
	}
	return 0, nil
}

func validPageSize(n int64) bool {
	return n >= minPageSize && n <= maxPageSize && n&(n-1) == 0
}

func (db *DB) checkMeta(at Pgid, size int64) error {
	m := db.meta
	switch {
	case int64(m.pageSize) != db.pageSize:
		return corrupt(at, "meta page: page size %d bytes, the other has %d", m.pageSize, db.pageSize)
	case m.highWater <= firstDataPage:
		return corrupt(at, "meta page: high-water mark %d", m.highWater)
	case m.highWater > maxPages:
		return corrupt(at, "meta page: high-water mark %d, more than %d pages are not supported", m.highWater, maxPages)
	case !db.inUse(m.root):
		return corrupt(at, "meta page: root page %d, high-water mark %d", m.root, m.highWater)
	case m.freelist != noFreelist && !db.inUse(m.freelist):
		return corrupt(at, "meta page: freelist page %d, high-water mark %d", m.freelist, m.highWater)
	case db.Size() > size:
		return &ShortError{Size: size, Want: db.Size()}
	}
	return nil
}

// inUse reports whether id can be the number of a data page.
func (db *DB) inUse(id Pgid) bool { return id >= firstDataPage && id < db.meta.highWater }

// PageSize returns the size of a page in bytes.
func (db *DB) PageSize() int64 { return db.pageSize }

// Root returns the root page of the top level.
func (db *DB) Root() Pgid { return db.meta.root }

// HighWater returns the first page number that was never used.
func (db *DB) HighWater() Pgid { return db.meta.highWater }

// Size returns the size of the database in bytes: high-water mark times page size.
func (db *DB) Size() int64 { return int64(db.meta.highWater) * db.pageSize }
