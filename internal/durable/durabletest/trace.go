package durabletest

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// Recorder is a [Hook] that keeps the operations that change something, or
// sync it, and succeed.
type Recorder struct {
	mu  sync.Mutex
	ops []Op
}

var recorded = map[string]bool{
	"create": true, "mkdir": true, "link": true, "rename": true, "publish": true,
	"remove": true, "syncdir": true, "copy": true, "allocate": true,
	"writeback": true, "await": true, "lock": true, "write": true, "sync": true, "truncate": true,
}

func (r *Recorder) Before(Op) error { return nil }

func (r *Recorder) After(op Op, err error) {
	if err != nil || !recorded[op.Kind] {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, op)
}

// Ops returns the operations recorded so far, in order.
func (r *Recorder) Ops() []Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Op(nil), r.ops...)
}

var randomPart = regexp.MustCompile(`\b[0-9a-f]{16}\b`)

// Trace returns the record as text, one operation a line, with paths relative to
// root, "*" for random names, and consecutive writes to one file joined.
func (r *Recorder) Trace(root string) string {
	rel := func(path string) string {
		if p, err := filepath.Rel(root, path); err == nil {
			path = filepath.ToSlash(p)
		}
		return randomPart.ReplaceAllString(path, "*")
	}
	var b strings.Builder
	ops := r.Ops()
	for i := 0; i < len(ops); i++ {
		op := ops[i]
		for ; op.Size > 0 && i+1 < len(ops) && sameTarget(op, ops[i+1]); i++ {
			op.Size += ops[i+1].Size
		}
		fmt.Fprintf(&b, "%s %s", op.Kind, rel(op.Path))
		if op.To != "" {
			fmt.Fprintf(&b, " -> %s", rel(op.To))
		}
		if op.Size > 0 {
			fmt.Fprintf(&b, " %d", op.Size)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func sameTarget(a, b Op) bool { return a.Kind == b.Kind && a.Path == b.Path && a.To == b.To }
