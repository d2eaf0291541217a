package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// StagedFile is a file that is written beside the path to which Commit moves it.
// It is not safe for concurrent use.
type StagedFile struct {
	fsys *reserve
	f    File
	path string // where it is published
	temp string // where it is staged
	open bool
	done bool
}

// CreateFile stages a new file with permissions 0600 that is to replace path.
//
// It follows a symbolic link at path, even a dangling one: it stages the file
// beside the target of the link and replaces that. Anything else at path that is
// not a regular file is an error, and so is a file that the sticky bit of its
// directory protects from this user. The directory must exist.
//
// CreateFile removes temporary files that killed calls for the same path left
// there. Those that this process or another is still writing are locked and stay.
// On an error nothing new is left.
func CreateFile(fsys FS, path string) (*StagedFile, error) {
	path, err := resolveFile(fsys, path)
	if err != nil {
		return nil, err
	}
	if err := checkReplaceable(fsys, path); err != nil {
		return nil, err
	}
	if err := removeStale(fsys, path); err != nil {
		return nil, fmt.Errorf("remove stale temporaries: %w", err)
	}
	held := &reserve{FS: fsys}
	if err := held.hold(filepath.Dir(path)); err != nil {
		return nil, err
	}
	s, err := stageFile(held, path)
	// Another call removed it as stale before it was locked.
	for n := 1; n < maxAttempts && (errors.Is(err, ErrInUse) || errors.Is(err, fs.ErrExist)); n++ {
		s, err = stageFile(held, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create temporary file: %w", err), held.drop())
	}
	return s, nil
}

func stageFile(fsys *reserve, path string) (*StagedFile, error) {
	temp := tempName(path)
	f, err := fsys.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, filePerm)
	if err != nil {
		return nil, err
	}
	s := &StagedFile{fsys: fsys, f: f, path: path, temp: temp, open: true}
	if err = fsys.TryLock(f); errors.Is(err, errors.ErrUnsupported) {
		err = nil // without locks no call removes it as stale either
	}
	if err == nil {
		err = stillNamed(fsys, f, temp)
	}
	if err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

// stillNamed returns ErrInUse if f is no longer the file at name: it was removed
// or replaced before it was locked.
func stillNamed(fsys FS, f File, name string) error {
	opened, err := f.Stat()
	if err != nil {
		return err
	}
	named, err := fsys.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrInUse
	}
	if err != nil {
		return err
	}
	if !os.SameFile(opened, named) {
		return ErrInUse
	}
	return nil
}

// File returns the open temporary file, for the operations of FS that take one.
func (s *StagedFile) File() File { return s.f }

// Commit makes the file durable and moves it to its path in one step: readers see
// the old content or the new one. On nil, file and directory are synced.
//
// On an error the old file is still at the path, or there again: Commit keeps it
// under a second name until the directory is synced. There are two exceptions: if
// the file system has no hard links, or the disk fails again while Commit restores
// the old name, the path has the new content, which is complete but may not survive
// a power cut. The error says so.
func (s *StagedFile) Commit() error {
	if s.done {
		return fs.ErrClosed
	}
	if err := s.f.Sync(); err != nil {
		return err
	}
	// By descriptor: by name, Windows would look up the identity of the file only
	// when it is compared, and the file has another name by then.
	staged, err := s.f.Stat()
	if err != nil {
		return err
	}
	if openFilesAreBusy {
		if err := s.close(); err != nil {
			return err
		}
	}
	old, err := s.keepOld()
	if err != nil {
		return fmt.Errorf("keep the old file: %w", err)
	}
	if err := s.fsys.Rename(s.temp, s.path); err != nil {
		return errors.Join(err, old.forget(s.fsys))
	}
	s.done = true
	err = errors.Join(s.close(), s.fsys.SyncDir(filepath.Dir(s.path)), s.fsys.drop())
	if err == nil {
		// This removal need not be synced: if the second name comes back, it
		// is a stale temporary file.
		err = old.forget(s.fsys)
	}
	if err != nil {
		return errors.Join(err, s.rollBack(staged, old))
	}
	return nil
}

// oldFile is the file that was at the path before.
type oldFile struct {
	exists bool
	backup string // its second name, empty if it has none
}

func (o oldFile) forget(fsys FS) error {
	if o.backup == "" {
		return nil
	}
	return ignoreNotExist(fsys.Remove(o.backup))
}

func (s *StagedFile) keepOld() (oldFile, error) {
	if err := checkReplaceable(s.fsys, s.path); err != nil { // it may be newer than the first check
		return oldFile{}, err
	}
	backup := tempName(s.path)
	err := s.fsys.Link(s.path, backup)
	switch {
	case err == nil:
		return oldFile{exists: true, backup: backup}, nil
	case errors.Is(err, fs.ErrNotExist):
		return oldFile{}, nil
	case errors.Is(err, fs.ErrPermission), errors.Is(err, errors.ErrUnsupported), isNotLinkable(err):
		return oldFile{exists: true}, nil
	}
	return oldFile{}, err
}

// checkReplaceable returns an error if the sticky bit of its directory protects the
// file at path from this user: a second name of it could not be removed.
func checkReplaceable(fsys FS, path string) error {
	dir, err := fsys.Lstat(filepath.Dir(path))
	if err != nil || dir.Mode()&fs.ModeSticky == 0 {
		return err
	}
	old, err := fsys.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !ownsEither(dir, old) {
		return &fs.PathError{Op: "replace", Path: path, Err: fs.ErrPermission}
	}
	return nil
}

// rollBack restores the old file at the path, unless another call has published
// there since.
func (s *StagedFile) rollBack(staged fs.FileInfo, old oldFile) error {
	now, err := s.fsys.Lstat(s.path)
	if err == nil && !os.SameFile(now, staged) {
		return old.forget(s.fsys)
	}
	switch {
	case err != nil:
	case !old.exists:
		err = s.fsys.Remove(s.path)
	case old.backup != "":
		err = s.fsys.Rename(old.backup, s.path)
	default:
		err = errors.ErrUnsupported
	}
	if err != nil {
		return fmt.Errorf("restore the old file: %w; the new file stays at %s and may not survive a power cut", err, s.path)
	}
	return s.fsys.SyncDir(filepath.Dir(s.path))
}

// Cleanup removes the staged file. After a Commit, whatever it returned, it
// does nothing unless there is still a staged file to remove. Calling it again
// is harmless.
func (s *StagedFile) Cleanup() error {
	if s.done {
		return nil
	}
	s.done = true
	return errors.Join(s.remove(), s.fsys.drop())
}

func (s *StagedFile) remove() error {
	if openFilesAreBusy {
		return errors.Join(s.close(), ignoreNotExist(s.fsys.Remove(s.temp)))
	}
	return errors.Join(ignoreNotExist(s.fsys.Remove(s.temp)), s.close())
}

func (s *StagedFile) close() error {
	if !s.open {
		return nil
	}
	s.open = false
	return errors.Join(s.fsys.Unlock(s.f), s.f.Close())
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
