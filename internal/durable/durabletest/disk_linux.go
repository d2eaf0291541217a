package durabletest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Disk is a [Hook] that knows, after every operation, what a power cut would
// leave of a directory: the content of a file as of its last sync, and the
// entries of a directory as of its last SyncDir. It looks at the real files, so it
// also sees what other code writes without the FS, once that is synced through the
// FS.
//
// It is for sequential operations.
type Disk struct {
	root string

	mu     sync.Mutex
	states []state
	blobs  map[[32]byte]*content
	err    error
}

// inode identifies a file, even if the number of a removed one is used again.
type inode struct {
	ino   uint64
	btime unix.StatxTimestamp
}

type dirent struct {
	node inode
	mode fs.FileMode
}

// content is what a file holds, without the zeros at its end.
type content struct {
	data []byte
	size int64
}

type state struct {
	op      Op
	files   map[inode]*content          // as last synced
	dirs    map[inode]map[string]dirent // as last synced
	current map[inode]map[string]dirent // as a running process sees it
	root    inode
}

// NewDisk starts watching root. Existing content counts as synced.
func NewDisk(root string) (*Disk, error) {
	d := &Disk{root: root, blobs: map[[32]byte]*content{}}
	st := state{files: map[inode]*content{}}
	var err error
	if st.root, err = d.look(root, &st, true); err != nil {
		return nil, err
	}
	st.dirs = maps.Clone(st.current)
	d.states = append(d.states, st)
	return d, nil
}

func (d *Disk) Before(Op) error { return nil }

// After records what op changed.
func (d *Disk) After(op Op, err error) {
	if err != nil || !recorded[op.Kind] {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.record(op); err != nil && d.err == nil {
		d.err = fmt.Errorf("%s %s: %w", op.Kind, op.Path, err)
	}
}

func (d *Disk) record(op Op) error {
	last := d.states[len(d.states)-1]
	next := state{op: op, files: last.files, dirs: last.dirs, root: last.root}
	if _, err := d.look(d.root, &next, false); err != nil {
		return err
	}
	switch op.Kind {
	case "sync":
		node, err := inodeOf(op.Path)
		if err != nil {
			return err
		}
		c, err := d.read(op.Path)
		if err != nil {
			return err
		}
		next.files = maps.Clone(last.files)
		next.files[node] = c
	case "syncdir":
		node, err := inodeOf(op.Path)
		if err != nil {
			return err
		}
		if list, ok := next.current[node]; ok {
			next.dirs = maps.Clone(last.dirs)
			next.dirs[node] = list
		}
	}
	d.states = append(d.states, next)
	return nil
}

// look lists dir and everything below it into st.current.
func (d *Disk) look(dir string, st *state, withContent bool) (inode, error) {
	if st.current == nil {
		st.current = map[inode]map[string]dirent{}
	}
	node, err := inodeOf(dir)
	if err != nil {
		return node, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return node, err
	}
	list := map[string]dirent{}
	st.current[node] = list
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		info, err := os.Lstat(name)
		if err != nil {
			return node, err
		}
		var child inode
		if info.IsDir() {
			child, err = d.look(name, st, withContent)
		} else if child, err = inodeOf(name); err == nil && withContent && info.Mode().IsRegular() {
			st.files[child], err = d.read(name)
		}
		if err != nil {
			return node, err
		}
		list[e.Name()] = dirent{node: child, mode: info.Mode()}
	}
	return node, nil
}

func (d *Disk) read(name string) (*content, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	c := &content{size: int64(len(data))}
	c.data = bytes.Clone(bytes.TrimRight(data, "\x00"))
	key := sha256.Sum256(fmt.Appendf(c.data, "%d", c.size))
	if known, ok := d.blobs[key]; ok {
		return known, nil
	}
	d.blobs[key] = c
	return c, nil
}

func inodeOf(name string) (inode, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_INO|unix.STATX_BTIME, &st)
	return inode{ino: st.Ino, btime: st.Btime}, err
}

// Len is the number of moments at which [Disk.Cut] can cut the power: before
// the first recorded operation, and after each.
func (d *Disk) Len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.states)
}

// At describes the operation before moment k.
func (d *Disk) At(k int) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	op := d.states[k].op
	return fmt.Sprintf("%s %s", op.Kind, op.Path)
}

// Loss is what a power cut loses.
type Loss func(rnd *rand.Rand) bool

var (
	// LoseAll keeps nothing that was not synced.
	LoseAll Loss = func(*rand.Rand) bool { return true }
	// LoseData keeps every change to directories, and no file content that
	// was not synced.
	LoseData Loss = func(*rand.Rand) bool { return false }
	// LoseSome keeps the unsynced changes of some directories.
	LoseSome Loss = func(rnd *rand.Rand) bool { return rnd.IntN(2) == 0 }
)

// Cut writes to dst, an empty directory, what is left after the power was cut
// at moment k. seed makes a choice repeatable.
func (d *Disk) Cut(k int, loss Loss, seed uint64, dst string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	st := d.states[k]
	rnd := rand.New(rand.NewPCG(seed, uint64(k)))
	return st.rebuild(st.root, loss, rnd, dst)
}

func (st *state) rebuild(node inode, loss Loss, rnd *rand.Rand, dst string) error {
	list := st.current[node]
	if loss(rnd) || list == nil {
		list = st.dirs[node]
	}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		e := list[name]
		at := filepath.Join(dst, name)
		var err error
		switch {
		case e.mode.IsDir():
			if err = os.Mkdir(at, e.mode.Perm()); err == nil {
				err = st.rebuild(e.node, loss, rnd, at)
			}
		case e.mode.IsRegular():
			var c content // nothing, unless it was synced
			if synced := st.files[e.node]; synced != nil {
				c = *synced
			}
			if err = os.WriteFile(at, c.data, e.mode.Perm()); err == nil {
				err = os.Truncate(at, c.size)
			}
		default:
			err = fmt.Errorf("%s: a %s cannot be rebuilt", name, e.mode.Type())
		}
		if err != nil {
			return err
		}
	}
	return nil
}
