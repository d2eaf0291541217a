package boltfile

import (
	"context"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
)

// Bucket is a bucket of the top level.
type Bucket struct {
	Name  string
	Index int // in key order, from 0

	sequence uint64
	root     Pgid   // 0 if the bucket has a single page, inline
	inline   []byte // that page
	page     Pgid   // the leaf page that lists the bucket
}

// Visitor gets the elements of one piece of a bucket: consecutive leaf pages, in
// key order. Pieces are numbered from 0 in key order; several are visited at once,
// each by one goroutine. An error ends the scan.
type Visitor interface {
	// Leaf is called with each leaf page in turn.
	Leaf(*Leaf) error
	// Large is called instead for each element of a leaf page that is too large
	// for memory. The value is nil for a nested bucket.
	Large(page Pgid, key []byte, value *io.SectionReader) error
	// Done is called after the last one.
	Done() error
}

// Options change how a Scan works. The zero value is fine.
type Options struct {
	// Visit returns the visitor for a piece of a bucket of the top level. It is
	// called by several goroutines. If it is nil, or returns nil, Scan only checks.
	Visit func(b Bucket, piece int) Visitor
	// Read gets the number of bytes read, on the goroutine of the caller.
	Read func(n int64)
	// Workers is how many goroutines read, 0 for one a processor.
	Workers int
}

// AllButOne is the number of Workers that leaves one processor for a checksum
// beside the scan: SHA-256 runs on one processor, so every delay of it delays the
// result.
func AllButOne() int { return max(1, runtime.GOMAXPROCS(0)-1) }

// MaxBuckets is how many buckets the top level of a database may hold. An etcd
// has ten.
const MaxBuckets = 1 << 16

// Scan reads every page that is in use once, checks the structure of the whole
// database and shows the elements of each bucket of the top level to visitors.
// It returns which pages are in use, and the buckets in key order.
//
// Errors are *CorruptError, *ShortError if the file shrinks meanwhile, and those of
// the reader, the visitors and the context. If several pages are damaged, Scan
// reports the same one each time, unless pages are referenced twice. The buffers
// have 128 KiB for each worker, up to 4 MiB if leaf pages are that large; each page
// takes one bit, two if the file has a freelist, and each branch page some hundred
// bytes.
func (db *DB) Scan(ctx context.Context, opts Options) (*Usage, []Bucket, error) {
	s := newScan(ctx, db, newUsage(db), opts)
	w := s.callersWorker()

	freelist, err := w.claimFreelist()
	if err != nil {
		return nil, nil, err
	}
	buckets, err := w.topLevel()
	if err != nil {
		return nil, nil, err
	}
	if err := s.visitBuckets(w, buckets); err != nil {
		return nil, nil, err
	}
	if err := s.checkNested(w); err != nil {
		return nil, nil, err
	}
	if db.meta.freelist != noFreelist {
		if err := s.usage.checkFreelist(w, freelist); err != nil {
			return nil, nil, err
		}
	}
	return s.usage, buckets, nil
}

// scan is what the workers of one Scan share.
type scan struct {
	ctx     context.Context
	db      *DB
	usage   *Usage
	visit   func(Bucket, int) Visitor
	read    func(int64)
	workers int
	others  atomic.Int64 // bytes read on goroutines other than the caller's, not reported yet

	mu     sync.Mutex
	nested []Pgid // roots of nested buckets still to be checked
}

func newScan(ctx context.Context, db *DB, usage *Usage, opts Options) *scan {
	s := &scan{ctx: ctx, db: db, usage: usage, visit: opts.Visit, read: opts.Read, workers: opts.Workers}
	if s.visit == nil {
		s.visit = func(Bucket, int) Visitor { return nil }
	}
	if s.read == nil {
		s.read = func(int64) {}
	}
	if s.workers == 0 {
		s.workers = runtime.GOMAXPROCS(0)
	}
	return s
}

// callersWorker is the worker of the calling goroutine, which reports what all have
// read.
func (s *scan) callersWorker() *worker {
	return s.newWorker(func(n int64) { s.read(n + s.others.Swap(0)) })
}

// piece is the unit of work: one leaf page, one inline page, or a branch page
// whose children are leaf pages.
type piece struct {
	child
	branch bool
	inline []byte  // the page of an inline bucket
	of     *Bucket // nil in a nested bucket
	number int     // in the bucket
}

func (s *scan) visitBuckets(w *worker, buckets []Bucket) error {
	var pieces []piece
	for i := range buckets {
		own, err := w.pieces(buckets[i])
		if err != nil {
			return err
		}
		for n := range own {
			own[n].of, own[n].number = &buckets[i], n
		}
		pieces = append(pieces, own...)
	}
	return s.run(w, pieces)
}

// pieces cuts a bucket into pieces.
func (w *worker) pieces(b Bucket) ([]piece, error) {
	if b.root == 0 {
		return []piece{{child: child{id: b.page}, inline: b.inline}}, nil
	}
	return w.split(b.root)
}

// checkNested checks the buckets inside buckets, level by level. etcd has none,
// and a file can nest them as deep as it has pages.
func (s *scan) checkNested(w *worker) error {
	for len(s.nested) > 0 {
		roots := s.nested
		s.nested = nil
		for _, root := range roots {
			pieces, err := w.split(root)
			if err != nil {
				return err
			}
			if err := s.run(w, pieces); err != nil {
				return err
			}
		}
	}
	return nil
}

// run processes the pieces with all workers, in order; own is the worker of the
// caller. Of several errors it returns that of the first piece: after an error it
// begins no piece, and it has begun all earlier ones.
func (s *scan) run(own *worker, pieces []piece) error {
	var (
		next   atomic.Int64
		failed atomic.Bool
		wg     sync.WaitGroup
		mu     sync.Mutex
		at     = len(pieces)
		err    error
	)
	work := func(w *worker) {
		for !failed.Load() {
			i := int(next.Add(1)) - 1
			if i >= len(pieces) {
				return
			}
			if e := w.piece(&pieces[i]); e != nil {
				failed.Store(true)
				mu.Lock()
				if i < at {
					at, err = i, e
				}
				mu.Unlock()
			}
		}
	}
	for range min(s.workers, len(pieces)) - 1 {
		wg.Go(func() { work(s.newWorker(func(n int64) { s.others.Add(n) })) })
	}
	defer func() {
		failed.Store(true) // in case Read panics
		wg.Wait()
	}()
	work(own)
	wg.Wait()
	s.read(s.others.Swap(0))
	return err
}
