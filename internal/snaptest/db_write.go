package snaptest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.etcd.io/bbolt"
)

// PageSize sets the page size in bytes; the default is 4096.
func (db *DB) PageSize(n int) *DB {
	db.pageSize = n
	return db
}

// WithFreelist sets whether the file has a freelist page. etcd writes none.
func (db *DB) WithFreelist(synced bool) *DB {
	db.freelist = synced
	return db
}

// Fragment makes Write commit often, and add and remove entries in between, so that
// pages are half full, out of order, and many of them free.
func (db *DB) Fragment() *DB {
	db.fragment = true
	return db
}

// Write writes the database to path, see WriteFile.
func (db *DB) Write(tb testing.TB, path string, trailer bool) string {
	tb.Helper()
	if err := db.WriteFile(path, trailer); err != nil {
		tb.Fatalf("write synthetic database: %v", err)
	}
	return path
}

// Bytes returns the file that Write writes.
func (db *DB) Bytes(tb testing.TB, trailer bool) []byte {
	tb.Helper()
	data, err := os.ReadFile(db.Write(tb, filepath.Join(MemoryDir(tb), "db"), trailer))
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// WriteFile writes the database to path and replaces an existing file. With trailer
// the file is as a server streams a snapshot: two equal meta pages, cut at the
// high-water mark, the SHA-256 checksum at the end. Without, it is like the file in
// a data directory: it may be longer than the high-water mark.
func (db *DB) WriteFile(path string, trailer bool) (err error) {
	raw := path
	if trailer {
		raw += ".building"
		defer func() { err = errors.Join(err, os.Remove(raw)) }()
	}
	if err := os.Remove(raw); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	b, err := bbolt.Open(raw, 0o600, &bbolt.Options{
		PageSize:       db.pageSize,
		NoFreelistSync: !db.freelist,
		FreelistType:   bbolt.FreelistArrayType, // the other kind allocates at random
		NoSync:         true,
		NoGrowSync:     true,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := db.fill(b); err != nil {
		return err
	}
	if !trailer {
		return nil
	}
	return stream(b, path)
}

// stream writes what a server would send for a snapshot request.
func stream(b *bbolt.DB, path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	hash := sha256.New()
	err = b.View(func(tx *bbolt.Tx) error {
		_, err := tx.WriteTo(io.MultiWriter(f, hash))
		return err
	})
	if err != nil {
		return err
	}
	_, err = f.Write(hash.Sum(nil))
	return err
}

// Commits of this many entries or bytes keep the memory of bulk writes low.
const (
	batchEntries = 20000
	batchBytes   = 32 << 20
)

// fill writes one bucket at a time: bbolt allocates the pages of several changed
// buckets of one transaction in the random order of a map.
func (db *DB) fill(b *bbolt.DB) error {
	names := slices.Sorted(maps.Keys(db.buckets))
	err := b.Update(func(tx *bbolt.Tx) error {
		for _, name := range names {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return fmt.Errorf("bucket %q: %w", name, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		err := b.Update(func(tx *bbolt.Tx) error {
			return fillNode(tx.Bucket([]byte(name)), db.buckets[name])
		})
		if err != nil {
			return fmt.Errorf("bucket %q: %w", name, err)
		}
	}
	if db.fragment {
		return db.fillFragmented(b)
	}
	for rest := db.records; len(rest) > 0; {
		err := b.Update(func(tx *bbolt.Tx) error {
			bucket := tx.Bucket([]byte("key"))
			bucket.FillPercent = 0.9 // as etcd does for keys that only grow
			for n, size := 0, 0; len(rest) > 0 && n < batchEntries && size < batchBytes; n++ {
				k, v, err := rest[0].entry()
				if err != nil {
					return err
				}
				if err := bucket.Put(k, v); err != nil {
					return fmt.Errorf("revision %d: %w", rest[0].main, err)
				}
				size += len(k) + len(v)
				rest = rest[1:]
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func fillNode(b *bbolt.Bucket, n *node) error {
	for _, k := range slices.Sorted(maps.Keys(n.pairs)) {
		if err := b.Put([]byte(k), n.pairs[k]); err != nil {
			return fmt.Errorf("entry %q: %w", k, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.subs)) {
		sub, err := b.CreateBucket([]byte(name))
		if err != nil {
			return fmt.Errorf("bucket %q: %w", name, err)
		}
		if err := fillNode(sub, n.subs[name]); err != nil {
			return err
		}
	}
	return nil
}

// fillFragmented commits the records in small groups in a fixed shuffled order, each
// with fillers before and after that a later commit removes.
func (db *DB) fillFragmented(b *bbolt.DB) error {
	const group = 16
	filler := func(i int) []byte { return append(revKey(int64(i)*group, 1<<40, false), 'x') }
	groups := (len(db.records) + group - 1) / group
	for i := range groups {
		// A step coprime to the number of groups visits each of them once.
		at := i * coprime(groups) % groups
		err := b.Update(func(tx *bbolt.Tx) error {
			bucket := tx.Bucket([]byte("key"))
			for _, r := range db.records[at*group : min((at+1)*group, len(db.records))] {
				k, v, err := r.entry()
				if err != nil {
					return err
				}
				if err := bucket.Put(k, v); err != nil {
					return err
				}
			}
			return bucket.Put(filler(i), madeUp(uint64(i), db.pageSize))
		})
		if err != nil {
			return err
		}
		if i%3 == 2 {
			if err := deleteKeys(b, filler(i), filler(i-1)); err != nil {
				return err
			}
		}
	}
	for i := range groups {
		if err := deleteKeys(b, filler(i)); err != nil {
			return err
		}
	}
	return nil
}

func coprime(n int) int {
	for step := n*5/8 | 1; ; step += 2 {
		a, b := step, n
		for b != 0 {
			a, b = b, a%b
		}
		if a == 1 {
			return step
		}
	}
}

func deleteKeys(b *bbolt.DB, keys ...[]byte) error {
	return b.Update(func(tx *bbolt.Tx) error {
		for _, k := range keys {
			if err := tx.Bucket([]byte("key")).Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
}
