package query

import (
	"bytes"
	"context"
	"iter"
	"runtime"
	"slices"
	"sort"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"etcd.example/snapshot/internal/keyspace"
)

// first returns the first window of a range. The last one found is kept, so that
// reading a range page by page takes few passes.
func (db *Database) first(ctx context.Context, r Range) (*window, error) {
	db.mu.Lock()
	w := db.window
	db.mu.Unlock()
	if w != nil {
		if part := w.part(r); part != nil {
			return part, nil
		}
	}
	if r.End != nil {
		db.mu.Lock()
		db.window = nil // only one is kept
		db.mu.Unlock()
	}
	w, err := db.collect(ctx, r, db.maxWindow)
	if err != nil {
		return nil, err
	}
	if r.End != nil {
		db.mu.Lock()
		db.window = w
		db.mu.Unlock()
	}
	return w, nil
}

// part returns the first window of r as a part of w, nil if w does not hold it.
func (w *window) part(r Range) *window {
	if r.Revision != w.Revision || bytes.Compare(r.Key, w.Key) < 0 || (w.next != nil && bytes.Compare(r.Key, w.next) >= 0) {
		return nil
	}
	from := w.search(r.Key)
	switch {
	case r.End == nil:
		if len(w.End) > 0 && bytes.Compare(r.Key, w.End) >= 0 {
			return nil
		}
		to := from
		if from < len(w.keys) && bytes.Equal(w.keys[from].key, r.Key) {
			to++
		}
		return &window{Range: r, keys: w.keys[from:to], total: to - from}
	case bytes.Equal(r.End, w.End):
		return &window{Range: r, keys: w.keys[from:], next: w.next, total: w.total - from}
	case len(r.End) == 0, len(w.End) > 0 && bytes.Compare(r.End, w.End) > 0, w.next != nil && bytes.Compare(r.End, w.next) > 0:
		return nil
	}
	to := max(w.search(r.End), from)
	return &window{Range: r, keys: w.keys[from:to], total: to - from}
}

// search returns the index of the first key that is not below key.
func (w *window) search(key []byte) int {
	return sort.Search(len(w.keys), func(i int) bool { return bytes.Compare(w.keys[i].key, key) >= 0 })
}

// keys yields the keys of a range in order.
func (db *Database) keys(ctx context.Context, r Range) iter.Seq2[found, error] {
	return func(yield func(found, error) bool) {
		for {
			w, err := db.first(ctx, r)
			if err != nil {
				yield(found{}, err)
				return
			}
			for _, f := range w.keys {
				if err := ctx.Err(); err != nil {
					yield(found{}, err)
					return
				}
				if !yield(f, nil) {
					return
				}
			}
			if w.next == nil {
				return
			}
			r = r.from(w.next)
		}
	}
}

// A batch of records is read at a time, in the order in which they lie in the file.
const (
	batchKeys  = 4096
	batchBytes = 16 << 20
)

// values yields the records of keys.
func (db *Database) values(ctx context.Context, keys iter.Seq2[found, error]) iter.Seq2[*mvccpb.KeyValue, error] {
	return batched(keys, func(f found) int64 { return f.size }, func(batch []found) ([]*mvccpb.KeyValue, error) {
		return db.readAll(ctx, batch)
	})
}

// batched yields what read makes of the elements, a batch at a time.
func batched[T, R any](all iter.Seq2[T, error], size func(T) int64, read func([]T) ([]R, error)) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		var none R
		var batch []T
		total, limit := int64(0), 16 // a caller that stops early has not waited for many
		flush := func() bool {
			results, err := read(batch)
			if err != nil {
				return yield(none, err) && false
			}
			for _, r := range results {
				if !yield(r, nil) {
					return false
				}
			}
			batch, total, limit = batch[:0], 0, min(2*limit, batchKeys)
			return true
		}
		for e, err := range all {
			if err != nil {
				yield(none, err)
				return
			}
			n := size(e)
			if len(batch) > 0 && (len(batch) == limit || total+n > batchBytes) && !flush() {
				return
			}
			batch, total = append(batch, e), total+n
		}
		if len(batch) > 0 {
			flush()
		}
	}
}

// readAll reads the records of some keys, on all processors.
func (db *Database) readAll(ctx context.Context, keys []found) ([]*mvccpb.KeyValue, error) {
	order := make([]int, len(keys))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return keys[a].revision.Compare(keys[b].revision) })
	kvs := make([]*mvccpb.KeyValue, len(keys))
	const minShare = 32
	share := max((len(keys)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0), minShare)
	errs := make([]error, len(keys)/share+1)
	var wg sync.WaitGroup
	n := 0
	for part := range slices.Chunk(order, share) {
		fail := &errs[n]
		n++
		wg.Go(func() {
			revisions := make([]keyspace.Revision, len(part))
			for i, at := range part {
				revisions[i] = keys[at].revision
			}
			*fail = db.readSorted(ctx, revisions, func(i int, kv *mvccpb.KeyValue) { kvs[part[i]] = kv })
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return kvs, nil
}
