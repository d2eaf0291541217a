package inspect

import (
	"bytes"
	"context"
	"errors"
	"io"

	"etcd.example/snapshot/internal/boltfile"
	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/meter"
	"etcd.example/snapshot/internal/snapfile"
	"etcd.example/snapshot/internal/trailer"
)

// Stream compares the checksum of a snapshot that it reads to the end, and checks
// the meta pages of its database, which are all in the first block.
func Stream(ctx context.Context, r io.Reader, report meter.Report) (trailer.Digest, error) {
	if err := ctx.Err(); err != nil {
		return trailer.Digest{}, err
	}
	m := report.Start(meter.Read, 0)
	blocks := trailer.NewBlockWriter(io.Discard)
	defer blocks.Close()

	var head []byte // a copy of the first block
	err := snapfile.ReadStream(ctx, r, blocks, m, func(block []byte) error {
		head = bytes.Clone(block)
		// A database of the other byte order still has a checksum to compare.
		if err := snapfile.RequireDatabaseIn(block); !errors.Is(err, fault.ErrByteOrder) {
			return err
		}
		return nil
	})
	if err != nil {
		return trailer.Digest{}, err
	}
	digest := blocks.Digest()
	if err := ctx.Err(); err != nil {
		return trailer.Digest{}, err
	}
	if head == nil { // there was less than a block
		head = blocks.Block()
	}
	if err := checkDigest(digest, head[:min(int64(len(head)), digest.Size)]); err != nil {
		return trailer.Digest{}, err
	}
	m.Finish()
	return digest, nil
}

// checkDigest checks the trailer, and the database as far as its head shows it.
func checkDigest(digest trailer.Digest, head []byte) error {
	r := bytes.NewReader(head)
	if err := snapfile.CheckDigest(digest, r); err != nil {
		return err
	}
	_, err := boltfile.Open(r, digest.Size)
	return err
}
