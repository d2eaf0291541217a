package durabletest

import (
	"errors"
	"fmt"
	"sync"
)

// ErrShortWrite, given to [FailAt], makes a write return fewer bytes than it
// was given and no error. It leaves other operations alone.
var ErrShortWrite = errors.New("short write")

// killed is the error of every operation after the process was killed.
type killed struct{ op Op }

func (k killed) Error() string { return fmt.Sprintf("killed at %s %s", k.op.Kind, k.op.Path) }

// Faults is a [Hook] that makes operations fail. Operations are counted from 0.
type Faults struct {
	hits func(n int) bool
	err  func(op Op) error

	mu    sync.Mutex
	count int
	first *Op
}

// FailAt makes operation k fail with err, once.
func FailAt(k int, err error) *Faults {
	return &Faults{hits: func(n int) bool { return n == k }, err: func(op Op) error {
		if err == ErrShortWrite && op.Kind != "write" {
			return nil
		}
		return err
	}}
}

// FailFrom makes operation k and every later one fail with err.
func FailFrom(k int, err error) *Faults {
	return &Faults{hits: func(n int) bool { return n >= k }, err: func(Op) error { return err }}
}

// KillAt does to the file system what a kill of the process at operation k does:
// neither that operation nor a later one is carried out, except that a write at k
// writes half its bytes; open files are closed, which ends their locks.
func KillAt(k int) *Faults {
	return &Faults{hits: func(n int) bool { return n >= k }, err: func(op Op) error { return killed{op} }}
}

func (f *Faults) Before(op Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.count
	f.count++
	if !f.hits(n) {
		return nil
	}
	err := f.err(op)
	if err != nil && f.first == nil {
		f.first = &op
	}
	return err
}

func (f *Faults) After(Op, error) {}

// Hit returns the first operation that failed because of f, if there was one.
func (f *Faults) Hit() (Op, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.first == nil {
		return Op{}, false
	}
	return *f.first, true
}

// Reached reports whether operation k was reached, failing or not.
func (f *Faults) Reached(k int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count > k
}
