package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

const (
	lostAndFound = "lost+found"
	// intoLockName is the lock directory within an existing target.
	intoLockName = ".restore"
)

// TargetConfig names the directories to publish.
type TargetConfig struct {
	// Dir is the directory to create.
	Dir string
	// WALDir is a second directory that appears together with Dir, outside of
	// it and possibly on another file system. If empty, there is none. It must
	// not exist.
	WALDir string
	// AllowEmptyDir accepts a Dir that exists and is empty, or holds only
	// "lost+found".
	AllowEmptyDir bool
}

// Target is one directory, or two, being staged: locked, invisible, and removed
// by Cleanup unless Commit has published it. Its methods are not safe for
// concurrent use; the staged directories may be written to concurrently.
type Target struct {
	fsys    *reserve
	dir     string   // real path of Dir
	present bool     // Dir existed
	into    bool     // Dir exists: publish into it, do not create it
	walDir  string   // real path of WALDir, empty if there is none
	data    *lockDir // where Dir is built
	wal     *lockDir // where WALDir is built, nil if there is none
	created []string // missing parents that were created

	published []publication
	leaving   bool // the lock directories may be gone already
	done      bool
}

// Open locks the target, removes what killed calls left of it, and creates an
// empty directory to stage in. Nothing is visible at the target until Commit.
//
// Open follows symbolic links above Dir and WALDir, and creates missing
// directories above them with permissions 0700. A symbolic link at Dir is
// ErrExists; with AllowEmptyDir it is followed to the directory.
//
// A new Dir "a/b" is staged in "a/.b.restore" and published by renaming. Since
// a mount point can be neither removed nor renamed over, an existing Dir is
// staged in "a/b/.restore". Then one entry must be staged, which is renamed into
// Dir.
//
// If others can write to the parent of a lock directory that exists already, the
// lock directory must belong to this user and be writable by no other user, as far
// as the file system distinguishes users and permissions.
//
// On a file system without locks, Open cannot tell the leftovers of a killed call
// from the files of a running one: there it returns ErrInUse until the user
// removes them.
//
// The errors are ErrExists if Dir or WALDir exists or Dir is not empty,
// ErrInUse, at once, if another call has locked either, ErrNested if the two
// overlap, and errors of the file system. After an error nothing new is left.
func Open(fsys FS, cfg TargetConfig) (*Target, error) {
	var last *retryError
	for range maxAttempts {
		t, err := open(fsys, cfg)
		if !errors.As(err, &last) {
			return t, err
		}
	}
	return nil, last.giveUp()
}

func open(fsys FS, cfg TargetConfig) (*Target, error) {
	t := &Target{fsys: &reserve{FS: fsys}}
	if err := t.resolve(cfg); err != nil {
		return nil, err
	}
	err := t.checkFree()
	if err == nil {
		err = t.stage()
	}
	if err == nil {
		return t, nil
	}
	err = errors.Join(err, t.Cleanup())
	if errors.Is(err, ErrExists) {
		err = errors.Join(err, t.removeLeftovers())
	}
	return nil, err
}

// stage locks the target and creates the empty directories to stage in.
func (t *Target) stage() (err error) {
	if t.data, err = t.lock(t.dataLock()); err != nil {
		return err
	}
	if err := t.fsys.hold(filepath.Dir(t.data.path)); err != nil {
		return err
	}
	if err := t.checkFreeLocked(); err != nil {
		return err
	}
	if t.walDir != "" {
		if err := t.stageWAL(); err != nil {
			return err
		}
	}
	// After the WAL: its intent may depend on what is staged here.
	if err := t.data.recover(t.dir); err != nil {
		return err
	}
	t.fsys.own(t.data.path, lockName)
	if err := t.data.forgetCommit(); err != nil {
		return err
	}
	if t.into {
		// Left by a call from before Dir existed.
		if err := t.removeStaleLock(lockPath(t.dir)); err != nil {
			return err
		}
	}
	return t.fsys.Mkdir(t.TreeDir(), dirPerm)
}

func (t *Target) stageWAL() (err error) {
	path := lockPath(t.walDir)
	if err := t.makeAbove(path); err != nil {
		return err
	}
	// Again, now that the file system itself shows which names are the same.
	if err := t.checkOverlap(); err != nil {
		return err
	}
	if t.wal, err = t.lock(path); err != nil {
		return err
	}
	if err := t.fsys.hold(filepath.Dir(t.wal.path)); err != nil {
		return err
	}
	if err := t.wal.recover(t.dir); err != nil {
		return err
	}
	t.fsys.own(t.wal.path, lockName)
	if there, err := exists(t.fsys, t.walDir); err != nil {
		return err
	} else if there {
		return existsError(t.walDir)
	}
	return t.fsys.Mkdir(t.wal.join(treeName), dirPerm)
}

// FS is the file system to stage files through: Cleanup knows what was created
// through it, even if the process has no descriptor left to list it.
func (t *Target) FS() FS { return t.fsys }

// TreeDir is the directory to stage in: what it holds at Commit is what Dir
// holds then.
func (t *Target) TreeDir() string { return t.data.join(treeName) }

// WALTreeDir is the path at which to create the directory that becomes WALDir. It
// does not exist yet. It is empty without a WALDir.
func (t *Target) WALTreeDir() string {
	if t.walDir == "" {
		return ""
	}
	return filepath.Join(t.wal.join(treeName), filepath.Base(t.walDir))
}

// resolve finds the real paths, without writing anything.
func (t *Target) resolve(cfg TargetConfig) (err error) {
	if t.dir, err = resolveParent(t.fsys, cfg.Dir); err != nil {
		return err
	}
	if t.present, err = exists(t.fsys, t.dir); err != nil {
		return err
	}
	if t.present && cfg.AllowEmptyDir {
		real, err := t.fsys.EvalSymlinks(t.dir)
		if errors.Is(err, fs.ErrNotExist) {
			return existsError(t.dir)
		}
		if err != nil {
			return err
		}
		info, err := t.fsys.Lstat(real)
		if err != nil {
			return err
		}
		if t.into = info.IsDir(); t.into {
			t.dir = real
		}
	}
	if cfg.WALDir == "" {
		return nil
	}
	if t.walDir, err = resolveParent(t.fsys, cfg.WALDir); err != nil {
		return err
	}
	return t.checkOverlap()
}

func (t *Target) checkOverlap() error {
	walLock := lockPath(t.walDir)
	for _, pair := range [][2]string{
		{t.walDir, t.dir}, {t.dir, t.walDir}, {lockPath(t.dir), t.walDir}, {walLock, t.dir}, {t.dataLock(), walLock},
	} {
		_, within, err := Within(t.fsys, pair[0], pair[1])
		if err != nil {
			return err
		}
		if within {
			return fmt.Errorf("%s and %s: %w", t.dir, t.walDir, ErrNested)
		}
	}
	return nil
}

// checkFree returns ErrExists if that is certain before the target is locked:
// then nothing is written at all.
func (t *Target) checkFree() error {
	switch {
	case t.into:
		rest, staged, err := t.listInto()
		if err != nil {
			return err
		}
		if len(rest) > 0 && !staged {
			return notEmptyError(t.dir, rest)
		}
	case t.present:
		return existsError(t.dir)
	}
	if t.walDir == "" {
		return nil
	}
	there, err := exists(t.fsys, t.walDir)
	if err != nil || !there {
		return err
	}
	if staged, err := exists(t.fsys, lockPath(t.walDir)); err != nil || staged {
		return err
	}
	return existsError(t.walDir)
}

// checkFreeLocked checks again, now that no other call can publish.
func (t *Target) checkFreeLocked() error {
	if !t.into {
		there, err := exists(t.fsys, t.dir)
		if err == nil && there {
			err = &retryError{fmt.Errorf("%s keeps appearing and disappearing", t.dir)}
		}
		return err
	}
	rest, _, err := t.listInto()
	if err == nil && len(rest) > 0 {
		err = notEmptyError(t.dir, rest)
	}
	return err
}

// removeLeftovers removes what killed calls left beside a target that exists: the
// WAL first, whose intent depends on the rest.
func (t *Target) removeLeftovers() error {
	var locks []string
	if t.walDir != "" {
		locks = append(locks, lockPath(t.walDir))
	}
	locks = append(locks, lockPath(t.dir))
	if t.into {
		locks = append(locks, t.dataLock())
	}
	var errs []error
	for _, path := range locks {
		// A running call removes its own.
		if err := t.removeStaleLock(path); !errors.Is(err, ErrInUse) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removeStaleLock removes the lock directory at path, if there is one that no
// running call needs.
func (t *Target) removeStaleLock(path string) error {
	if there, err := exists(t.fsys, path); err != nil || !there {
		return err
	}
	l, err := t.lock(path)
	if errors.Is(err, errNotOurs) {
		return nil
	}
	if err != nil {
		return err
	}
	err = l.recover(t.dir)
	if errors.Is(err, ErrExists) { // in doubt: another call has to decide
		err = nil
	}
	return errors.Join(err, l.release(), l.close())
}

// listInto lists the entries that keep an existing target from being empty, and
// reports whether a call has staged something there.
func (t *Target) listInto() (rest []string, staged bool, err error) {
	entries, err := t.fsys.ReadDir(t.dir)
	for _, e := range entries {
		switch name := e.Name(); name {
		case lostAndFound:
		case intoLockName:
			staged = true
		default:
			rest = append(rest, name)
		}
	}
	return rest, staged, retryIfGone(err)
}

// lock locks the lock directory at path and creates what is missing above it. It
// leaves what a killed call left in it.
func (t *Target) lock(path string) (*lockDir, error) {
	if err := t.makeAbove(path); err != nil {
		return nil, err
	}
	return acquire(t.fsys, path)
}

func (t *Target) makeAbove(path string) error {
	created, err := mkdirMissing(t.fsys, filepath.Dir(path), t.fsys.SyncDir)
	t.created = append(t.created, created...)
	return retryIfGone(err) // a call that fails removes what it created
}

func (t *Target) dataLock() string {
	if t.into {
		return filepath.Join(t.dir, intoLockName)
	}
	return lockPath(t.dir)
}

func existsError(path string) error { return fmt.Errorf("%s %w", path, ErrExists) }

func notEmptyError(dir string, rest []string) error {
	return fmt.Errorf("%s %w and holds %q", dir, ErrExists, rest)
}
