// Package querytest asks every question that a snapshot can be asked.
package querytest

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"runtime/debug"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/fault"
)

// Target is what is asked.
type Target struct {
	Latest, Compacted int64 // revisions
	KV                clientv3.KV
	Range             func(ctx context.Context, key string, opts ...clientv3.OpOption) iter.Seq2[*mvccpb.KeyValue, error]
	Records           func(ctx context.Context, after int64) iter.Seq2[*mvccpb.KeyValue, error]
	Diff              func(ctx context.Context, from, to int64, key string, opts ...clientv3.OpOption) iter.Seq2[*mvccpb.KeyValue, error]
	HashKV            func(ctx context.Context, revision, compactRevision int64) (uint32, error)
}

// Reader is a Target that asks a Reader.
func Reader(r *snapshot.Reader) Target {
	info := r.Info()
	return Target{
		Latest: info.Revision, Compacted: info.CompactRevision, KV: r.KV(), Range: r.Range,
		Records: func(ctx context.Context, after int64) iter.Seq2[*mvccpb.KeyValue, error] {
			return Values(r.Records(ctx, after), func(rec snapshot.Record) []*mvccpb.KeyValue { return []*mvccpb.KeyValue{rec.KeyValue} })
		},
		Diff: func(ctx context.Context, from, to int64, key string, opts ...clientv3.OpOption) iter.Seq2[*mvccpb.KeyValue, error] {
			changes := snapshot.Diff(ctx, snapshot.At{Reader: r, Revision: from}, snapshot.At{Reader: r, Revision: to}, key, opts...)
			return Values(changes, func(c snapshot.Change) []*mvccpb.KeyValue { return []*mvccpb.KeyValue{c.Before, c.After} })
		},
		HashKV: func(ctx context.Context, revision, compactRevision int64) (uint32, error) {
			h, err := r.HashKV(ctx, revision, compactRevision)
			return h.Hash, err
		},
	}
}

// Values are the KeyValues in what an iterator yields.
func Values[T any](all iter.Seq2[T, error], of func(T) []*mvccpb.KeyValue) iter.Seq2[*mvccpb.KeyValue, error] {
	return func(yield func(*mvccpb.KeyValue, error) bool) {
		for v, err := range all {
			if err != nil {
				yield(nil, err)
				return
			}
			for _, kv := range of(v) {
				if !yield(kv, nil) {
					return
				}
			}
		}
	}
}

// Query is a question. Its answer is a digest: that of a broken-off one differs from
// that of a whole one.
type Query struct {
	Name string
	Run  func(context.Context) (answer string, err error)
}

// Queries are all kinds of questions, about a key and about the keys with a prefix.
func (t Target) Queries(key, prefix string) []Query {
	middle := t.Compacted + (t.Latest-t.Compacted)/2
	get := func(key string, opts ...clientv3.OpOption) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			resp, err := t.KV.Get(ctx, key, opts...)
			if err != nil {
				return "", err
			}
			return fmt.Sprint(resp.Header.Revision, resp.Count, resp.More, digest(resp.Kvs)), nil
		}
	}
	hash := func(revision, compacted int64) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			h, err := t.HashKV(ctx, revision, compacted)
			return fmt.Sprint(h), err
		}
	}
	each := func(all func(context.Context) iter.Seq2[*mvccpb.KeyValue, error], most int) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) { return drain(all(ctx), most) }
	}
	ranges := func(opts ...clientv3.OpOption) func(context.Context) iter.Seq2[*mvccpb.KeyValue, error] {
		return func(ctx context.Context) iter.Seq2[*mvccpb.KeyValue, error] { return t.Range(ctx, prefix, opts...) }
	}
	records := func(after int64) func(context.Context) iter.Seq2[*mvccpb.KeyValue, error] {
		return func(ctx context.Context) iter.Seq2[*mvccpb.KeyValue, error] { return t.Records(ctx, after) }
	}
	diff := func(from, to int64) func(context.Context) iter.Seq2[*mvccpb.KeyValue, error] {
		return func(ctx context.Context) iter.Seq2[*mvccpb.KeyValue, error] {
			return t.Diff(ctx, from, to, prefix, clientv3.WithFromKey())
		}
	}
	return []Query{
		{"get", get(key)},
		{"get what is missing", get(key + "/missing")},
		{"get at a revision", get(key, clientv3.WithRev(middle))},
		{"get keys at a revision", get(prefix, clientv3.WithPrefix(), clientv3.WithRev(middle), clientv3.WithLimit(5))},
		{"get keys", get(prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())},
		{"get by value", get(prefix, clientv3.WithFromKey(), clientv3.WithSort(clientv3.SortByValue, clientv3.SortDescend), clientv3.WithLimit(3))},
		{"get by revision", get(prefix, append(clientv3.WithLastRev(), clientv3.WithPrefix())...)},
		{"count", get(prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())},
		{"count at a revision", get(prefix, clientv3.WithPrefix(), clientv3.WithCountOnly(), clientv3.WithRev(middle))},
		{"get some", get(prefix, clientv3.WithPrefix(), clientv3.WithMinModRev(middle))},
		{"get a future revision", get(key, clientv3.WithRev(t.Latest+1))},
		{"get stream", func(ctx context.Context) (string, error) { return t.stream(ctx, prefix) }},
		{"txn", func(ctx context.Context) (string, error) { return t.txn(ctx, key, prefix, middle) }},
		{"range", each(ranges(clientv3.WithPrefix()), 0)},
		{"range broken off", each(ranges(clientv3.WithPrefix()), 3)},
		{"range at a revision", each(ranges(clientv3.WithFromKey(), clientv3.WithRev(middle)), 0)},
		{"range of keys", each(ranges(clientv3.WithFromKey(), clientv3.WithKeysOnly()), 0)},
		{"records", each(records(0), 0)},
		{"records broken off", each(records(0), 3)},
		{"later records", each(records(middle), 0)},
		{"diff", each(diff(middle, 0), 0)},
		{"diff broken off", each(diff(middle, 0), 3)},
		{"diff with itself", each(diff(0, 0), 0)},
		{"hashkv", hash(0, 0)},
		{"hashkv at a revision", hash(middle, 0)},
		{"hashkv compacted", hash(0, middle)},
		{"hashkv compacted at a revision", hash(middle, middle)},
	}
}

func (t Target) stream(ctx context.Context, prefix string) (string, error) {
	all, err := t.KV.GetStream(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return "", err
	}
	resp, err := clientv3.GetStreamToGetResponse(all)
	for range all { // the stream has ended when the channel is closed
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprint(resp.Count, resp.More, digest(resp.Kvs)), nil
}

func (t Target) txn(ctx context.Context, key, prefix string, revision int64) (string, error) {
	resp, err := t.KV.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(prefix), ">", 0).WithPrefix(), clientv3.Compare(clientv3.Value(key), "!=", "x")).
		Then(clientv3.OpGet(key), clientv3.OpGet(prefix, clientv3.WithPrefix(), clientv3.WithLimit(2), clientv3.WithRev(revision))).
		Else(clientv3.OpGet(prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())).
		Commit()
	if err != nil {
		return "", err
	}
	answer := fmt.Sprint(resp.Succeeded)
	for _, r := range resp.Responses {
		answer += fmt.Sprint(" ", r.GetResponseRange().Count, digest(r.GetResponseRange().Kvs))
	}
	return answer, nil
}

// drain reads an iterator, up to most elements unless that is 0.
func drain(all iter.Seq2[*mvccpb.KeyValue, error], most int) (string, error) {
	var sum string
	n := 0
	for kv, err := range all {
		if err != nil {
			return "", err
		}
		sum = digest([]*mvccpb.KeyValue{kv}, sum)
		if n++; n == most {
			break
		}
	}
	return fmt.Sprint(n, sum), nil
}

func digest(kvs []*mvccpb.KeyValue, before ...string) string {
	h := fnv.New64a()
	for _, s := range before {
		_, _ = h.Write([]byte(s)) // never fails
	}
	for _, kv := range kvs {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(kv)
		if err != nil {
			panic(err) // of a KeyValue
		}
		_, _ = h.Write(append(b, 0))
	}
	return fmt.Sprintf(" %x", h.Sum64())
}

// Ask asks one question. A panic is an error. So is what a snapshot must not
// answer, whatever its content: any error but ErrCorrupt, ErrCompacted or ErrFuture,
// and those in others.
func Ask(ctx context.Context, q Query, others ...error) (answer string, refused, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%s: panic: %v\n%s", q.Name, v, debug.Stack())
		}
	}()
	answer, refused = q.Run(ctx)
	if refused == nil {
		return answer, nil, nil
	}
	for _, allowed := range append(others, fault.ErrCorrupt, fault.ErrCompacted, fault.ErrFuture) {
		if errors.Is(refused, allowed) {
			return answer, refused, nil
		}
	}
	return answer, refused, fmt.Errorf("%s: %w", q.Name, refused)
}

// AskTwice asks one question twice and wants the same answer.
func AskTwice(ctx context.Context, q Query, others ...error) (refused, err error) {
	first, refused, err := Ask(ctx, q, others...)
	if err != nil {
		return refused, err
	}
	second, again, err := Ask(ctx, q, others...)
	if err == nil && (first != second || (refused == nil) != (again == nil)) {
		err = fmt.Errorf("%s: %q, %v, and then %q, %v", q.Name, first, refused, second, again)
	}
	return refused, err
}
