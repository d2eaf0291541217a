package bootstrap

import (
	"encoding/json"
	"path"
	"time"
)

// The namespaces of etcd's v2 store: cluster state, and the keys of v2 clients.
const (
	v2ClusterPrefix = "/0"
	v2KeysPrefix    = "/1"
)

const (
	v2Version = 2    // of the store's format
	v2History = 1000 // events that the store remembers
)

// v2Store is the JSON of etcd's v2 store.
type v2Store struct {
	Root       v2Node
	WatcherHub struct {
		EventHistory struct {
			Queue                 v2Queue
			StartIndex, LastIndex uint64 // of the events in the queue
		}
	}
	CurrentIndex   uint64
	Stats          v2Stats
	CurrentVersion int
}

// v2Node is a directory, which has children, or a file, which has a value.
type v2Node struct {
	Path                        string
	CreatedIndex, ModifiedIndex uint64
	ExpireTime                  time.Time // zero: never
	Value                       string
	Children                    map[string]v2Node // nil for a file
}

// v2Queue is a ring of events.
type v2Queue struct {
	Events                      []*v2Event
	Size, Front, Back, Capacity int
}

// v2Event is the creation of a file.
type v2Event struct {
	Action string `json:"action"`
	Node   struct {
		Key           string `json:"key"`
		Value         string `json:"value"`
		ModifiedIndex uint64 `json:"modifiedIndex"`
		CreatedIndex  uint64 `json:"createdIndex"`
	} `json:"node"`
}

// v2Stats counts requests by their kind and outcome.
type v2Stats struct {
	GetsSuccess             uint64 `json:"getsSuccess"`
	GetsFail                uint64 `json:"getsFail"`
	SetsSuccess             uint64 `json:"setsSuccess"`
	SetsFail                uint64 `json:"setsFail"`
	DeleteSuccess           uint64 `json:"deleteSuccess"`
	DeleteFail              uint64 `json:"deleteFail"`
	UpdateSuccess           uint64 `json:"updateSuccess"`
	UpdateFail              uint64 `json:"updateFail"`
	CreateSuccess           uint64 `json:"createSuccess"`
	CreateFail              uint64 `json:"createFail"`
	CompareAndSwapSuccess   uint64 `json:"compareAndSwapSuccess"`
	CompareAndSwapFail      uint64 `json:"compareAndSwapFail"`
	CompareAndDeleteSuccess uint64 `json:"compareAndDeleteSuccess"`
	CompareAndDeleteFail    uint64 `json:"compareAndDeleteFail"`
	ExpireCount             uint64 `json:"expireCount"`
	Watchers                uint64 `json:"watchers"`
}

// v2Store returns the membership as a saved v2 store, from which etcd 3.4 and
// 3.5 read it: one file a member, created in the order of their ids. etcd
// creates them in the order of a map.
func (c *Cluster) v2Store() ([]byte, error) {
	queue := v2Queue{Events: make([]*v2Event, v2History), Capacity: v2History}
	members := make([]v2Node, len(c.members))
	for i, m := range c.members {
		value, err := json.Marshal(m.raftAttributes)
		if err != nil {
			return nil, err
		}
		index := uint64(i) + 1
		dir := path.Join(v2ClusterPrefix, "members", m.ID.String())
		file := v2Node{
			Path:         path.Join(dir, "raftAttributes"),
			CreatedIndex: index, ModifiedIndex: index,
			Value: string(value),
		}
		members[i] = v2Dir(dir, index, file)
		queue.push(file)
	}

	s := v2Store{
		Root: v2Dir("/", 0,
			v2Dir(v2ClusterPrefix, 0, v2Dir(path.Join(v2ClusterPrefix, "members"), 1, members...)),
			v2Dir(v2KeysPrefix, 0)),
		CurrentIndex: c.Index(),
		// etcd looks for members before it creates any: that get fails, and counts.
		Stats:          v2Stats{GetsFail: 1, CreateSuccess: c.Index()},
		CurrentVersion: v2Version,
	}
	history := &s.WatcherHub.EventHistory
	history.Queue = queue
	history.StartIndex = queue.Events[queue.Front].Node.CreatedIndex
	history.LastIndex = c.Index()
	return json.Marshal(s)
}

// v2Dir returns a directory that was created, together with its children, at
// the given index.
func v2Dir(name string, index uint64, children ...v2Node) v2Node {
	d := v2Node{Path: name, CreatedIndex: index, ModifiedIndex: index, Children: map[string]v2Node{}}
	for _, child := range children {
		d.Children[path.Base(child.Path)] = child
	}
	return d
}

// push adds the creation of file. If the queue is full, it drops the oldest event.
func (q *v2Queue) push(file v2Node) {
	e := &v2Event{Action: "create"}
	e.Node.Key, e.Node.Value = file.Path, file.Value
	e.Node.ModifiedIndex, e.Node.CreatedIndex = file.ModifiedIndex, file.CreatedIndex
	q.Events[q.Back] = e
	q.Back = (q.Back + 1) % q.Capacity
	if q.Size < q.Capacity {
		q.Size++
	} else {
		q.Front = q.Back
	}
}
