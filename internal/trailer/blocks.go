package trailer

import (
	"fmt"
	"io"
)

const (
	// BlockSize is how many bytes a [BlockWriter] writes and hashes at a time.
	BlockSize = 1 << 20
	// blockCount is how many blocks there are: one that is filled or written,
	// and those by which hashing may be behind.
	blockCount = 4
)

// BlockWriter gathers the bytes of a snapshot into blocks, writes them, and
// hashes each on a goroutine of its own meanwhile. It is for one goroutine:
//
//	Space, Filled ──> block ──┬── Flush ──> w
//	                          └── hashed ──> Digest
type BlockWriter struct {
	w io.Writer

	block  []byte // being filled
	free   chan []byte
	toHash chan []byte // nil when the goroutine has been told to end
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

// newBlock has place for a trailer, should it be the last.
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

// Space is where the next bytes go: those that the block lacks, or a trailer if
// it lacks none and is not flushed.
func (b *BlockWriter) Space() []byte {
	if n := len(b.block); n < BlockSize {
		return b.block[n:BlockSize]
	}
	return b.block[len(b.block):cap(b.block)]
}

// Filled takes n bytes of Space, and reports whether the block is full and can be
// flushed.
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

// Digest ends the snapshot and hashes its last block, which is not written yet:
// that is for WriteLast.
func (b *BlockWriter) Digest() Digest {
	b.toHash <- b.block
	return b.end()
}

// WriteLast writes the block, which stays as it is.
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

// Close ends the goroutine if Digest has not.
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
