// Package match compares a snapshot with what the members of a cluster hold.
package match

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"etcd.example/snapshot/internal/fault"
	"etcd.example/snapshot/internal/query"
)

// Answer is what a member answers to HashKV.
type Answer struct {
	Hash            uint32
	CompactRevision int64 // that the hash is for
	Current         int64 // latest revision of the member
}

// Ask asks the member at an endpoint for HashKV at a revision, 0 for the latest. A
// revision that the member no longer has is [fault.ErrCompacted], one that it does
// not have yet [fault.ErrFuture]. Errors name the endpoint.
type Ask func(ctx context.Context, endpoint string, revision int64) (Answer, error)

// Between two questions to a member that lags, in the beginning and at most.
const (
	firstWait = 50 * time.Millisecond
	maxWait   = time.Second
)

// Members compares the database with each member, all at once, at the latest
// revision of the database. Where members differ the error is a
// [fault.ErrMismatch] that names them and the hashes. A member that does not have the
// revision yet is asked again until ctx ends.
func Members(ctx context.Context, db *query.Database, endpoints []string, ask Ask) error {
	errs := make([]error, len(endpoints))
	var wg sync.WaitGroup
	for i, endpoint := range endpoints {
		wg.Go(func() { errs[i] = member(ctx, db, endpoint, ask) })
	}
	wg.Wait()
	var all error
	for _, err := range errs {
		all = fault.Join(all, err)
	}
	return all
}

func member(ctx context.Context, db *query.Database, endpoint string, ask Ask) error {
	var lagged error // at the question before
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		lag, err := compare(ctx, db, endpoint, ask)
		switch {
		case lag == nil && lagged != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()):
			return fmt.Errorf("%w: %w", lagged, err)
		case lag == nil:
			return err
		}
		lagged = lag
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", lag, ctx.Err())
		}
	}
}

// compare compares the database with one member. lag is why the member cannot be
// compared yet.
func compare(ctx context.Context, db *query.Database, endpoint string, ask Ask) (lag, err error) {
	theirs, err := ask(ctx, endpoint, db.Current)
	if errors.Is(err, fault.ErrFuture) {
		return err, nil
	}
	if err != nil {
		return nil, err
	}
	own, err := db.HashKV(ctx, db.Current, theirs.CompactRevision)
	if errors.Is(err, fault.ErrCompacted) {
		return notComparable(ctx, db, endpoint, theirs, ask)
	}
	if err != nil {
		return nil, err
	}
	if own.Hash != theirs.Hash {
		return nil, fmt.Errorf("%w: %s: hash %08x at revision %d, compacted at %d; the snapshot has %08x",
			fault.ErrMismatch, endpoint, theirs.Hash, own.Revision, theirs.CompactRevision, own.Hash)
	}
	return nil, nil
}

// notComparable is for a hash of before a compaction that the snapshot has seen:
// either the member has yet to compact, or it kept that hash when it compacted at
// this very revision.
func notComparable(ctx context.Context, db *query.Database, endpoint string, theirs Answer, ask Ask) (lag, err error) {
	latest, err := ask(ctx, endpoint, 0)
	if err != nil {
		return nil, err
	}
	err = fmt.Errorf("%w: %s: the hash at revision %d is that of the compact revision %d, the snapshot is compacted at %d",
		fault.ErrCompacted, endpoint, db.Current, theirs.CompactRevision, db.Compacted)
	if latest.CompactRevision >= db.Compacted {
		return nil, err
	}
	return err, nil
}
