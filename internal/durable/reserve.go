package durable

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// reserve is an FS that can still clean up when the process has no descriptor
// left. It keeps the directories open that will have to be synced, and remembers
// the entries of the directories that this call owns, so that it can list them
// without opening them.
type reserve struct {
	FS

	mu   sync.Mutex
	held map[string]File
	made map[string]map[string]bool // entries of the directories of this call, by path and base name
}

// hold keeps dir open until drop. A directory that cannot be opened cannot be
// synced; hold shows that before anything is staged.
func (r *reserve) hold(dir string) error {
	if _, ok := r.held[dir]; ok {
		return nil
	}
	f, err := r.FS.OpenFile(dir, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	if openFilesAreBusy { // and directories are not synced
		return f.Close()
	}
	if r.held == nil {
		r.held = map[string]File{}
	}
	r.held[dir] = f
	return nil
}

// drop closes what is held.
func (r *reserve) drop() error {
	var errs []error
	for _, dir := range slices.Sorted(maps.Keys(r.held)) {
		errs = append(errs, r.held[dir].Close())
	}
	r.held = nil
	return errors.Join(errs...)
}

// own records that dir belongs to this call alone, and what it holds.
func (r *reserve) own(dir string, names ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.made == nil {
		r.made = map[string]map[string]bool{}
	}
	r.made[dir] = map[string]bool{}
	for _, name := range names {
		r.made[dir][name] = true
	}
}

// note records that name exists, or that it does not, if it is in a directory of
// this call. It reports whether it is.
func (r *reserve) note(name string, there bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	names, ok := r.made[filepath.Dir(name)]
	if ok && there {
		names[filepath.Base(name)] = true
	} else if ok {
		delete(names, filepath.Base(name))
	}
	return ok
}

func (r *reserve) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := r.FS.OpenFile(name, flag, perm)
	if err == nil && flag&os.O_CREATE != 0 {
		r.note(name, true)
	}
	return f, err
}

func (r *reserve) Mkdir(name string, perm fs.FileMode) error {
	err := r.FS.Mkdir(name, perm)
	if err == nil && r.note(name, true) {
		r.own(name)
	}
	return err
}

func (r *reserve) Rename(oldpath, newpath string) error {
	return r.moved(oldpath, newpath, r.FS.Rename(oldpath, newpath))
}

func (r *reserve) RenameNoReplace(oldpath, newpath string) error {
	return r.moved(oldpath, newpath, r.FS.RenameNoReplace(oldpath, newpath))
}

// moved records a rename that has succeeded, and the new paths of what is below.
func (r *reserve) moved(oldpath, newpath string, err error) error {
	if err != nil {
		return err
	}
	r.note(oldpath, false)
	r.note(newpath, true)
	r.mu.Lock()
	defer r.mu.Unlock()
	for dir, names := range r.made {
		rel, below := strings.CutPrefix(dir, oldpath)
		if below && (rel == "" || os.IsPathSeparator(rel[0])) {
			delete(r.made, dir)
			r.made[newpath+rel] = names
		}
	}
	return nil
}

func (r *reserve) Remove(name string) error {
	err := r.FS.Remove(name)
	if err == nil {
		r.note(name, false)
	}
	return err
}

// ReadDir lists a directory of this call from memory if it cannot be opened for
// lack of a descriptor.
func (r *reserve) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := r.FS.ReadDir(name)
	if !isExhausted(err) {
		return entries, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	names, ok := r.made[name]
	if !ok {
		return nil, err
	}
	entries = nil
	for _, base := range slices.Sorted(maps.Keys(names)) {
		info, err := r.FS.Lstat(filepath.Join(name, base))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, fs.FileInfoToDirEntry(info))
	}
	return entries, nil
}

// SyncDir syncs through the held descriptor if the directory cannot be opened again.
func (r *reserve) SyncDir(name string) error {
	err := r.FS.SyncDir(name)
	if f, ok := r.held[name]; ok && isExhausted(err) {
		return ignoreNoSync(f.Sync())
	}
	return err
}

// isExhausted reports whether this process, or the system, has no descriptor left.
func isExhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
