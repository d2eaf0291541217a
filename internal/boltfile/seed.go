package boltfile

import (
	"fmt"
	"hash/fnv"
	"io"
	"math"
)

// maxSeed is how many free pages SeedFreelist names at the most: enough for a
// small transaction, and few enough for one page.
const maxSeed = 500

// SeedFreelist gives the database a short freelist, so that bbolt can open it
// for writing without walking through all of it, or without reading a list of
// millions of pages. w must write to the file that was scanned, nobody else may
// have it open.
//
// The list is one page that names some of the free pages. bbolt takes the
// others for used, also those of the list that there was before, until it is
// closed. It must be opened with NoFreelistSync, as etcd does on Linux: then it
// drops the list at its first commit, and finds all free pages by itself the
// next time.
func (db *DB) SeedFreelist(w io.WriterAt, usage *Usage) error {
	if db.meta.txid >= math.MaxUint64-1 {
		return corrupt(0, "meta page: transaction id %d is the last", db.meta.txid)
	}
	free := make([]Pgid, 0, maxSeed)
	for id := range usage.Free() {
		if free = append(free, id); len(free) == min(maxSeed, int(db.pageSize-pageHeaderSize)/8) {
			break
		}
	}
	next := db.meta
	next.txid++
	if len(free) > 0 {
		next.freelist, free = free[0], free[1:]
	} else {
		next.freelist = next.highWater
		next.highWater++
	}

	page := make([]byte, db.pageSize)
	putHeader(page, header{id: next.freelist, flags: flagFreelist, count: uint16(len(free))})
	for i, id := range free {
		order.PutUint64(page[pageHeaderSize+8*i:], uint64(id))
	}
	if err := writeFull(w, page, int64(next.freelist)*db.pageSize); err != nil {
		return fmt.Errorf("write freelist: %w", err)
	}

	clear(page)
	at := Pgid(next.txid % 2) // where bbolt would write it
	putHeader(page, header{id: at, flags: flagMeta})
	copy(page[pageHeaderSize:], db.rawMeta(next))
	if err := writeFull(w, page, int64(at)*db.pageSize); err != nil {
		return fmt.Errorf("write meta page: %w", err)
	}
	db.meta = next
	return nil
}

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

// rawMeta is the meta of the file with the fields of m and a new checksum.
func (db *DB) rawMeta(m meta) []byte {
	b := db.raw
	order.PutUint64(b[32:], uint64(m.freelist))
	order.PutUint64(b[40:], uint64(m.highWater))
	order.PutUint64(b[48:], m.txid)
	sum := fnv.New64a()
	_, _ = sum.Write(b[:metaChecksumAt])
	order.PutUint64(b[metaChecksumAt:], sum.Sum64())
	return b[:]
}
