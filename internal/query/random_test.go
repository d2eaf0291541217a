package query_test

import (
	"fmt"
	"math/rand/v2"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// generator makes random queries about a key space.
type generator struct {
	*rand.Rand
	latest, compacted int64
	kvs               []*mvccpb.KeyValue // alive
	streams           bool
}

func (g *generator) oneIn(n int) bool { return g.IntN(n) == 0 }

// key is mostly one that was there at some time, rarely an empty one.
func (g *generator) key() string {
	switch {
	case g.oneIn(50):
		return ""
	case g.oneIn(20):
		return "\x00"
	case len(g.kvs) > 0 && g.oneIn(2):
		return string(g.kvs[g.IntN(len(g.kvs))].Key)
	}
	return fmt.Sprintf("k/%c/%d", 'a'+g.IntN(5), g.IntN(32))
}

// revision is mostly one that can be read.
func (g *generator) revision() int64 {
	switch g.IntN(10) {
	case 0:
		return g.Int64N(g.latest + 20)
	case 1:
		return g.compacted + g.Int64N(3) - 1
	case 2:
		return g.latest + g.Int64N(3) - 1
	case 3:
		return -g.Int64N(4)
	}
	return g.compacted + g.Int64N(g.latest-g.compacted+1)
}

// get is the key and the options of a Get.
func (g *generator) get() (key string, opts []clientv3.OpOption) {
	key = g.key()
	switch g.IntN(5) {
	case 0:
		opts = append(opts, clientv3.WithPrefix())
		key = key[:g.IntN(len(key)+1)]
	case 1:
		opts = append(opts, clientv3.WithFromKey())
	case 2:
		opts = append(opts, clientv3.WithRange(g.key()))
	case 3:
		opts = append(opts, clientv3.WithPrefix())
		key = "k/"
	}
	for _, o := range []struct {
		oneIn  int
		option func() clientv3.OpOption
	}{
		{3, func() clientv3.OpOption { return clientv3.WithRev(g.revision()) }},
		{3, func() clientv3.OpOption { return clientv3.WithLimit(g.Int64N(22) - 1) }},
		{3, func() clientv3.OpOption { return g.sort(5, 3) }},
		{60, func() clientv3.OpOption { return g.sort(7, 5) }}, // some of them unknown
		{6, clientv3.WithKeysOnly},
		{8, clientv3.WithCountOnly},
		{8, clientv3.WithSerializable},
		{8, func() clientv3.OpOption { return clientv3.WithMinModRev(g.revision()) }},
		{8, func() clientv3.OpOption { return clientv3.WithMaxModRev(g.revision()) }},
		{8, func() clientv3.OpOption { return clientv3.WithMinCreateRev(g.revision()) }},
		{8, func() clientv3.OpOption { return clientv3.WithMaxCreateRev(g.revision()) }},
	} {
		if g.oneIn(o.oneIn) {
			opts = append(opts, o.option())
		}
	}
	return key, opts
}

// sort leaves out what etcd 3.7.3 gets wrong in a stream: with another target than the
// key and no order it sorts each message alone and goes on after the last key of that,
// so keys are missing.
func (g *generator) sort(targets, orders int) clientv3.OpOption {
	target, order := clientv3.SortTarget(g.IntN(targets)), clientv3.SortOrder(g.IntN(orders))
	if g.streams && target != clientv3.SortByKey && order == clientv3.SortNone {
		order = clientv3.SortAscend
	}
	return clientv3.WithSort(target, order)
}

// stream is the key and the options of a GetStream, which has fewer of them.
func (g *generator) stream() (key string, opts []clientv3.OpOption) {
	g.streams = true
	defer func() { g.streams = false }()
	if g.oneIn(4) {
		return g.get()
	}
	key = "k/" + string(rune('a'+g.IntN(5)))
	opts = append(opts, []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithPrefix(), clientv3.WithRange("k/c/2")}[g.IntN(3)])
	if g.oneIn(3) {
		opts = append(opts, clientv3.WithRev(g.revision()))
	}
	if g.oneIn(2) {
		opts = append(opts, clientv3.WithLimit([]int64{0, 1, 20, 255, 256, 257, 512, 700}[g.IntN(8)]))
	}
	if g.oneIn(4) {
		opts = append(opts, clientv3.WithKeysOnly())
	}
	if g.oneIn(6) {
		opts = append(opts, clientv3.WithCountOnly())
	}
	return key, opts
}

// compare compares a key, or those of a range, mostly with what one of them has.
func (g *generator) compare() clientv3.Cmp {
	key, like := g.key(), &mvccpb.KeyValue{}
	if len(g.kvs) > 0 && !g.oneIn(4) {
		like = g.kvs[g.IntN(len(g.kvs))]
		key = string(like.Key)
	}
	number := func(n int64) int64 { return n + int64(g.IntN(3)) - 1 }
	result := []string{"=", "!=", ">", "<"}[g.IntN(4)]
	var c clientv3.Cmp
	switch g.IntN(5) {
	case 0:
		value := string(like.Value)
		if g.oneIn(3) {
			value = value[:g.IntN(len(value)+1)]
		}
		c = clientv3.Compare(clientv3.Value(key), result, value)
	case 1:
		c = clientv3.Compare(clientv3.CreateRevision(key), result, number(like.CreateRevision))
	case 2:
		c = clientv3.Compare(clientv3.ModRevision(key), result, number(like.ModRevision))
	case 3:
		c = clientv3.Compare(clientv3.Version(key), result, number(like.Version))
	case 4:
		c = clientv3.Compare(clientv3.LeaseValue(key), result, number(like.Lease))
	}
	switch g.IntN(5) {
	case 0:
		c = c.WithRange(g.key())
	case 1:
		c = c.WithRange("\x00")
	case 2:
		c = c.WithPrefix()
	}
	return c
}

// txn is a transaction that only reads, with others in it.
func (g *generator) txn(depth int) (compares []clientv3.Cmp, then, otherwise []clientv3.Op) {
	n := func() int {
		if g.oneIn(40) {
			return 126 + g.IntN(5) // a server takes up to 128
		}
		return g.IntN(3)
	}
	for range n() {
		compares = append(compares, g.compare())
	}
	branch := func() (ops []clientv3.Op) {
		for range n() {
			if depth > 0 && g.oneIn(3) {
				ops = append(ops, clientv3.OpTxn(g.txn(depth-1)))
				continue
			}
			key, opts := g.get()
			ops = append(ops, clientv3.OpGet(key, opts...))
		}
		return ops
	}
	return compares, branch(), branch()
}
