package snapshot

import (
	"fmt"
	"io"

	"etcd.example/snapshot/internal/trailer"
)

const (
	// blockSize is how many bytes are written and hashed at a time.
	blockSize = 1 << 20
	// blockCount is how many blocks there are: one that is filled or written,
	// and those by which hashing may be behind.
	blockCount = 4
)

// blockWriter gathers bytes into blocks, writes them, and hashes each on a
// goroutine of its own meanwhile. Its methods are called by one goroutine.
type blockWriter struct {
	w io.Writer

	block  []byte // being filled
	free   chan []byte
	toHash chan []byte // nil when the goroutine has been told to end
	sum    chan trailer.Digest
}

// newBlockWriter starts the goroutine. abandon must be called.
func newBlockWriter(w io.Writer) *blockWriter {
	b := &blockWriter{
		w:      w,
		free:   make(chan []byte, blockCount),
		toHash: make(chan []byte, blockCount),
		sum:    make(chan trailer.Digest, 1),
	}
	for range blockCount - 1 {
		b.free <- newBlock()
	}
	b.block = newBlock()
	go hashBlocks(b.toHash, b.free, b.sum)
	return b
}

// newBlock has place for a trailer, should it be the last.
func newBlock() []byte { return make([]byte, 0, blockSize+trailer.Size) }

func hashBlocks(blocks <-chan []byte, free chan<- []byte, sum chan<- trailer.Digest) {
	t := trailer.NewWriter(io.Discard)
	for block := range blocks {
		_, _ = t.Write(block) // cannot fail
		free <- block[:0]
	}
	digest, _ := t.Finish()
	sum <- digest
}

// room is where the next bytes go: those that the block lacks, or a trailer if
// it lacks none and is not flushed.
func (b *blockWriter) room() []byte {
	if n := len(b.block); n < blockSize {
		return b.block[n:blockSize]
	}
	return b.block[len(b.block):cap(b.block)]
}

// filled takes n bytes of room, and says whether the block is full and can be
// flushed.
func (b *blockWriter) filled(n int) bool {
	b.block = b.block[:len(b.block)+n]
	return len(b.block) == blockSize
}

// flush writes the full block and makes room for the next one.
func (b *blockWriter) flush() (int, error) {
	b.toHash <- b.block
	if err := b.write(); err != nil {
		return 0, err
	}
	n := len(b.block)
	b.block = <-b.free
	return n, nil
}

// digest hashes what is left. The last block can still be written afterwards.
func (b *blockWriter) digest() trailer.Digest {
	b.toHash <- b.block
	return b.finish()
}

func (b *blockWriter) finish() trailer.Digest {
	close(b.toHash)
	b.toHash = nil
	return <-b.sum
}

// abandon ends the goroutine if digest has not.
func (b *blockWriter) abandon() {
	if b.toHash != nil {
		b.finish()
	}
}

// write writes the block, which stays as it is.
func (b *blockWriter) write() error {
	n, err := b.w.Write(b.block)
	if err == nil && n != len(b.block) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
