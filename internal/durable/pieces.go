package durable

import (
	"context"
	"time"
)

// Pieces splits kernel calls on a file into pieces: a call cannot be interrupted,
// and one that waits for a busy disk waits for all of its bytes. A piece has as
// many bytes as take about pieceTime, within bounds.
const (
	pieceTime  = 20 * time.Millisecond
	firstPiece = 1 << 20
	minPiece   = 512 << 10
	maxPiece   = 8 << 20
)

// Pieces finds the size of pieces for one kind of call. The zero value is ready.
type Pieces struct {
	size int64
}

// Next returns the size of the next piece in bytes, a power of two.
func (p *Pieces) Next() int64 {
	if p.size == 0 {
		p.size = firstPiece
	}
	return p.size
}

// Took adjusts the size after a call for n bytes that took d.
func (p *Pieces) Took(n int64, d time.Duration) {
	if d < pieceTime/2 && n >= p.size {
		p.size = min(2*p.size, maxPiece)
	}
	for ; d > pieceTime && p.size > minPiece; d /= 2 {
		p.size /= 2
	}
}

// Each calls do for each piece of a range in turn. When ctx ends, it returns after
// the current call.
func (p *Pieces) Each(ctx context.Context, off, end int64, do func(off, n int64) error) error {
	for off < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(p.Next(), end-off)
		start := time.Now()
		if err := do(off, n); err != nil {
			return err
		}
		p.Took(n, time.Since(start))
		off += n
	}
	return nil
}
