package durable

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"unicode/utf8"
)

// prefixSize is how many bytes of each file an intent remembers by digest. A
// log that is used grows from its first bytes on, in a file that may have been
// given its full size at once.
const prefixSize = 1 << 20

// maxIntent is the size in bytes beyond which a file is not taken for an intent.
const maxIntent = 16 << 20

// intent is what a killed call leaves to say that a directory it published
// means nothing without another one that it did not come to publish. It is
// written before the first is published and goes after the last.
type intent struct {
	// Name is the directory published early, in the parent of the lock
	// directory that holds the intent.
	Name fileName `json:"name"`
	// Commit is the path whose presence means that everything is published.
	Commit fileName `json:"commit"`
	// Staged is the lock directory in which Commit is staged until then, and ID
	// what the lock file in it says meanwhile, which no other call's does.
	Staged fileName `json:"staged"`
	ID     string   `json:"id"`
	// Content is what Name held. If it holds anything else, it is in use.
	Content []entry `json:"content"`
}

// entry is one file or directory of a published tree.
type entry struct {
	Path   fileName `json:"path"`             // below the tree, with slashes
	Size   int64    `json:"size"`             // bytes; -1 for a directory
	Prefix string   `json:"sha256,omitempty"` // SHA-256 of the first prefixSize bytes
}

// fileName is a name or a path. In JSON it is a string, or, since that cannot
// hold all that a file system can, an array with its bytes in base64.
type fileName string

func (n fileName) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(n)) {
		return json.Marshal(string(n))
	}
	return json.Marshal([][]byte{[]byte(n)})
}

func (n *fileName) UnmarshalJSON(data []byte) error {
	if data[0] != '[' {
		return json.Unmarshal(data, (*string)(n))
	}
	var b [1][]byte
	err := json.Unmarshal(data, &b)
	*n = fileName(b[0])
	return err
}

// describe lists what a tree holds, in lexical order. It is errIrregular if
// that is not files and directories only.
func describe(fsys FS, root string) ([]entry, error) {
	var list []entry
	var walk func(dir string, rel fileName) error
	walk = func(dir string, rel fileName) error {
		entries, err := fsys.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			name := filepath.Join(dir, e.Name())
			at := entry{Path: rel + fileName(e.Name()), Size: -1}
			switch {
			case e.IsDir():
				list = append(list, at)
				if err := walk(name, at.Path+"/"); err != nil {
					return err
				}
				continue
			case !e.Type().IsRegular():
				return fmt.Errorf("%s: %w", name, errIrregular)
			}
			if at.Size, at.Prefix, err = digestPrefix(fsys, name); err != nil {
				return err
			}
			list = append(list, at)
		}
		return nil
	}
	err := walk(root, "")
	return list, err
}

var errIrregular = errors.New("neither a file nor a directory")

func digestPrefix(fsys FS, name string) (size int64, prefix string, err error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return 0, "", err
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, prefixSize)); err != nil {
		return 0, "", err
	}
	return info.Size(), hex.EncodeToString(h.Sum(nil)), nil
}

// writeIntent makes the intent durable in l, which it makes anew if it is
// released already.
func (l *lockDir) writeIntent(in *intent) error {
	data, err := json.Marshal(in)
	if err != nil {
		return err
	}
	if l.free {
		if err := l.fsys.Mkdir(l.path, dirPerm); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	f, err := l.fsys.OpenFile(l.join(intentName), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, filePerm)
	if err != nil {
		return err
	}
	n, err := f.Write(data)
	if n < len(data) && err == nil {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := l.fsys.SyncDir(l.path); err != nil {
		return err
	}
	return l.fsys.SyncDir(filepath.Dir(l.path))
}

// readIntent returns the intent in l. ok is false if there is none, or one that
// was never finished: then nothing was published.
func (l *lockDir) readIntent() (in intent, ok bool, err error) {
	f, err := l.fsys.OpenFile(l.join(intentName), os.O_RDONLY, 0)
	if err != nil {
		return intent{}, false, ignoreNotExist(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err := io.ReadAll(io.LimitReader(f, maxIntent))
	if err != nil {
		return intent{}, false, err
	}
	ok = json.Unmarshal(data, &in) == nil && filepath.IsLocal(string(in.Name)) && filepath.Base(string(in.Name)) == string(in.Name)
	return in, ok, nil
}

// withdraw removes the directory that a killed call published early, unless
// that call published everything, or the directory has changed since.
// While it cannot tell whether everything was published, it is ErrExists, and
// the intent stays for a call that can. dir is where the present call is about to
// publish.
func (l *lockDir) withdraw(in intent, dir string) error {
	committed, inDoubt, err := in.committed(l.fsys, dir)
	if err != nil || committed {
		return err
	}
	early := filepath.Join(filepath.Dir(l.path), string(in.Name))
	info, err := l.fsys.Lstat(early)
	if err != nil {
		return ignoreNotExist(err)
	}
	if !info.IsDir() {
		return nil
	}
	now, err := describe(l.fsys, early)
	if errors.Is(err, errIrregular) {
		return nil
	}
	if err != nil {
		return err
	}
	if !slices.Equal(now, in.Content) {
		return nil
	}
	if inDoubt {
		return fmt.Errorf("%s %w: an interrupted call made it for %s, which was moved or removed since; "+
			"move that back, or remove %s", early, ErrExists, in.Commit, early)
	}
	return l.trash(early)
}

// committed reports whether the killed call published everything, or that there
// is doubt.
//
// The last rename takes away what is staged. While that is still staged, nothing
// is committed. Once it is neither staged nor published, the published directory,
// or what was staged, was moved away, or a later call for that directory removed
// what was staged. On a disk that writes a rename in two steps
// a power cut can do it as well, so a call for the same directory, which does not
// exist, starts afresh.
//
// The killed call may have known the directory dir by another path.
func (in *intent) committed(fsys FS, dir string) (committed, inDoubt bool, err error) {
	commit := string(in.Commit)
	for _, path := range []string{commit, filepath.Join(dir, filepath.Base(commit))} {
		if there, err := exists(fsys, path); err != nil || there {
			return there, false, err
		}
	}
	for _, lock := range []string{string(in.Staged), lockPath(dir), filepath.Join(dir, intoLockName)} {
		if staged, err := isStaged(fsys, lock, in.ID); err != nil || staged {
			return false, false, err
		}
	}
	rel, within, err := Within(fsys, dir, filepath.Dir(commit))
	return false, !within || rel != ".", err
}

// isStaged reports whether something is staged in a lock directory by the call
// that named its commit id.
func isStaged(fsys FS, lock, id string) (staged bool, err error) {
	f, err := fsys.OpenFile(filepath.Join(lock, lockName), os.O_RDONLY, 0)
	if isAbsent(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	named, err := io.ReadAll(io.LimitReader(f, int64(len(id))+1))
	if err != nil || id == "" || string(named) != id {
		return false, err
	}
	entries, err := fsys.ReadDir(filepath.Join(lock, treeName))
	if isAbsent(err) {
		return false, nil
	}
	return len(entries) > 0, err
}

// nameCommit writes id to the lock file, durably.
func (l *lockDir) nameCommit(id string) error {
	n, err := l.f.WriteAt([]byte(id), 0)
	if err == nil && n < len(id) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return err
	}
	return l.f.Sync()
}

// forgetCommit takes the name away that a killed call gave its commit, before
// anything is staged that could be taken for it.
func (l *lockDir) forgetCommit() error {
	info, err := l.f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	if err := l.f.Truncate(0); err != nil {
		return err
	}
	return l.f.Sync()
}
