package trailer

import (
	"fmt"
	"io"
)

const (
	// BlockSize is how many bytes a [BlockWriter] writes and hashes at a time.
	BlockSize = 1 << 20
	// blockCount is how many blocks there are: one that is filled or written, and
	// the others waiting to be hashed.
	blockCount = 4
)

// BlockWriter collects the bytes of a snapshot in blocks and writes them, while a
// goroutine of its own hashes them. Its methods are for one goroutine:
//
//	Space, Filled ──> block ──┬── Flush ──> w
//	                          └── hashed ──> Digest
type BlockWriter struct {
	w io.Writer

	block  []byte // being filled
	free   chan []byte
	toHash chan []byte // nil once the goroutine was told to end
	digest chan Digest
}

// NewBlockWriter starts the goroutine. Close must be called.
func NewBlockWriter(w io.Writer) *BlockWriter {
	b := &BlockWriter{
		w:      w,
		free:   make(chan []byte, blockCount),
		toHash: make(chan []byte, blockCount),
		digest: make(chan Digest, 1),
	}
	for range blockCount - 1 {
		b.free <- newBlock()
	}
	b.block = newBlock()
	go hashBlocks(b.toHash, b.free, b.digest)
	return b
}

// newBlock returns a block with space for a trailer, in case it is the last one.
func newBlock() []byte { return make([]byte, 0, BlockSize+Size) }

func hashBlocks(blocks <-chan []byte, free chan<- []byte, digest chan<- Digest) {
	w := NewWriter(io.Discard)
	for block := range blocks {
		_, _ = w.Write(block) // cannot fail
		free <- block[:0]
	}
	d, _ := w.Finish()
	digest <- d
}

// Space returns the slice to fill next: the rest of the block or, if the block is
// full and not flushed, the space for a trailer.
func (b *BlockWriter) Space() []byte {
	if n := len(b.block); n < BlockSize {
		return b.block[n:BlockSize]
	}
	return b.block[len(b.block):cap(b.block)]
}

// Filled adds the first n bytes of Space to the block, and reports whether the block
// is full and can be flushed.
func (b *BlockWriter) Filled(n int) bool {
	b.block = b.block[:len(b.block)+n]
	return len(b.block) == BlockSize
}

// Block returns the bytes that are not flushed yet.
func (b *BlockWriter) Block() []byte { return b.block }

// Flush writes the full block, begins the next one, and returns how many bytes it
// has written.
func (b *BlockWriter) Flush() (int, error) {
	b.toHash <- b.block
	if err := b.WriteLast(); err != nil {
		return 0, err
	}
	n := len(b.block)
	b.block = <-b.free
	return n, nil
}

// Digest ends the snapshot and hashes its last block. It does not write that block:
// WriteLast does.
func (b *BlockWriter) Digest() Digest {
	b.toHash <- b.block
	return b.end()
}

// WriteLast writes the current block and keeps it.
func (b *BlockWriter) WriteLast() error {
	n, err := b.w.Write(b.block)
	if err == nil && n != len(b.block) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// Close ends the goroutine, unless Digest has ended it.
func (b *BlockWriter) Close() {
	if b.toHash != nil {
		b.end()
	}
}

func (b *BlockWriter) end() Digest {
	close(b.toHash)
	b.toHash = nil
	return <-b.digest
}
