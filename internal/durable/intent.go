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

// prefixSize is how many bytes of each file an intent remembers by checksum. A
// log in use is written from its first bytes on, in a file that may have its full
// size from the beginning.
const prefixSize = 1 << 20

// maxIntent is the size in bytes of the largest file that is read as an intent.
const maxIntent = 16 << 20

// intent tells later calls that a directory is worth nothing without a second one
// that the killed call did not publish. It is written before the first publication
// and removed after the last.
type intent struct {
	// Name is the directory published early, in the parent of the lock
	// directory that holds the intent.
	Name fileName `json:"name"`
	// Commit is the path whose presence means that everything is published.
	Commit fileName `json:"commit"`
	// Staged is the lock directory in which Commit is staged until then. ID is
	// the content of its lock file meanwhile, unique to the call.
	Staged fileName `json:"staged"`
	ID     string   `json:"id"`
	// Content is what Name held. If it holds anything else, it is in use.
	Content []entry `json:"content"`
}

// entry is one file or directory in a published directory.
type entry struct {
	Path   fileName `json:"path"`             // below the published directory, with slashes
	Size   int64    `json:"size"`             // bytes; -1 for a directory
	Prefix string   `json:"sha256,omitempty"` // SHA-256 of the first prefixSize bytes
}

// fileName is a name or a path. In JSON it is a string, or, if it is not UTF-8, an
// array with its bytes in base64.
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

// describe lists what is below root, in lexical order. It returns errIrregular for
// anything but files and directories.
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
			if at.Size, at.Prefix, err = hashPrefix(fsys, name); err != nil {
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

func hashPrefix(fsys FS, name string) (size int64, prefix string, err error) {
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

// writeIntent makes the intent durable in l. It creates the directory again if l is
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

// readIntent returns the intent in l. ok is false if there is none, or only an
// incomplete one: then nothing was published.
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
// that call published everything, or the directory has changed since. If it
// cannot tell whether everything was published, it returns ErrExists, and the
// intent stays for a call that can. dir is where the present call will publish.
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
		return fmt.Errorf("%s %w: an interrupted call created it for %s, which was moved or removed since; "+
			"move that back, or remove %s", early, ErrExists, in.Commit, early)
	}
	return l.trash(early)
}

// committed reports whether the killed call published everything, or that it is in
// doubt.
//
// While Commit is still staged, nothing is committed: the last rename moves it out
// of staging. If it is neither staged nor published, someone moved the published
// or the staged directory away, or a later call for that directory removed what
// was staged. On a disk that writes a rename in two steps a power cut can have the
// same effect, so a call for the same directory, which does not exist, starts over.
//
// The killed call may have used another path for the directory dir.
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

// isStaged reports whether a lock directory holds something staged by the call
// whose commit is named id.
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

// forgetCommit removes the id of a killed call's commit, before anything is staged
// that could be mistaken for it.
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
