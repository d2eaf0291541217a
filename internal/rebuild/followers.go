package rebuild

import (
	"context"
	"sync"
	"sync/atomic"
)

// followers work on the bytes that have been copied, each on its own goroutine:
//
//	advance(end) ──┬──> do(0, end), do(end, later), …
//	               └──> do(0, end), …
//	wait  <────────┴─── everything is done, or the first error
//
// Copying never waits for them. The first error, of the copy or of a follower, ends
// the context of all. The methods are for one goroutine, which must call wait or
// fail.
type followers struct {
	caller context.Context
	ctx    context.Context // of the copy and of the followers
	cancel context.CancelCauseFunc
	all    []*follower
	once   sync.Once
	err    error
}

// follow starts a follower for each do, and calls it with consecutive ranges.
func follow(caller context.Context, do ...func(ctx context.Context, from, to int64) error) *followers {
	f := &followers{caller: caller}
	f.ctx, f.cancel = context.WithCancelCause(caller)
	for _, do := range do {
		each := &follower{wake: make(chan struct{}, 1), done: make(chan struct{})}
		f.all = append(f.all, each)
		go each.run(func(from, to int64) {
			if err := do(f.ctx, from, to); err != nil {
				f.cancel(err) // from now on do returns at once
			}
		})
	}
	return f
}

// advance tells the followers where the copied bytes end.
func (f *followers) advance(end int64) {
	for _, each := range f.all {
		each.end.Store(end)
		select {
		case each.wake <- struct{}{}:
		default: // it has yet to look
		}
	}
}

// wait waits until the followers have done everything up to the last advance. It
// returns the error of the caller's context, or else the first error.
func (f *followers) wait() error {
	f.once.Do(func() {
		for _, each := range f.all {
			close(each.wake)
			<-each.done
		}
		if f.err = f.caller.Err(); f.err == nil {
			f.err = context.Cause(f.ctx)
		}
		f.cancel(nil)
	})
	return f.err
}

// fail ends the followers because of err, unless they have ended, and waits.
func (f *followers) fail(err error) error {
	f.cancel(err)
	return f.wait()
}

type follower struct {
	end  atomic.Int64  // of the copied bytes
	wake chan struct{} // holds one value when end has changed
	done chan struct{}
}

func (f *follower) run(do func(from, to int64)) {
	defer close(f.done)
	from := int64(0)
	for range f.wake {
		if to := f.end.Load(); from < to {
			do(from, to)
			from = to
		}
	}
}
