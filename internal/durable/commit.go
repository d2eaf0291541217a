package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// publication is one rename that makes a staged directory appear.
type publication struct {
	from, to string
	lock     *lockDir // where it is staged
	intent   *intent  // written before the rename, nil for the last one
}

// Commit syncs everything that is staged, so the code that wrote the files need
// not, and publishes it: WALDir first, then Dir, whose appearance is the commit
// point. On nil, all files and directories are durable, including those above,
// and nothing else is left.
//
// On an error Cleanup removes what Commit published. Until then, and after a
// kill, WALDir may exist without Dir; the next Open on it repairs that.
// ErrExists means that something was created at the target in the meantime.
func (t *Target) Commit() error {
	if t.done {
		return fs.ErrClosed
	}
	plan, err := t.plan()
	if err != nil {
		return err
	}
	for _, p := range plan {
		if err := syncTree(t.fsys, p.from); err != nil {
			return fmt.Errorf("sync staged files: %w", err)
		}
	}
	last := plan[len(plan)-1]
	id := randomName()
	if len(plan) > 1 {
		if err := t.data.nameCommit(id); err != nil {
			return fmt.Errorf("name the commit: %w", err)
		}
		if err := t.syncStaging(last.from); err != nil {
			return fmt.Errorf("sync staging: %w", err)
		}
	}
	for i := range plan[:len(plan)-1] {
		if err := t.writeIntent(&plan[i], last, id); err != nil {
			return fmt.Errorf("write intent: %w", err)
		}
	}
	for _, p := range plan {
		if err := t.publish(p); err != nil {
			return fmt.Errorf("publish %s: %w", p.to, err)
		}
	}
	if len(plan) > 1 {
		// After the new parent: a power cut must not leave it in neither directory.
		if err := t.fsys.SyncDir(filepath.Dir(last.from)); err != nil {
			return fmt.Errorf("sync staging: %w", err)
		}
	}
	if err := t.leave(); err != nil {
		return fmt.Errorf("remove staging: %w", err)
	}
	t.done = true
	return nil
}

// plan lists the renames. The last one is the commit point.
func (t *Target) plan() ([]publication, error) {
	entries, err := t.fsys.ReadDir(t.TreeDir())
	if err != nil {
		return nil, err
	}
	var plan []publication
	if t.wal != nil {
		plan = append(plan, publication{from: t.WALTreeDir(), to: t.walDir, lock: t.wal})
	}
	if !t.into {
		if len(entries) == 0 {
			return nil, fmt.Errorf("nothing staged for %s", t.dir)
		}
		return append(plan, publication{from: t.TreeDir(), to: t.dir, lock: t.data}), nil
	}
	if len(entries) != 1 {
		return nil, fmt.Errorf("%d entries staged for the existing %s, want 1", len(entries), t.dir)
	}
	name := entries[0].Name()
	return append(plan, publication{from: filepath.Join(t.TreeDir(), name), to: filepath.Join(t.dir, name), lock: t.data}), nil
}

// syncStaging makes the staged name durable. An intent relies on it.
func (t *Target) syncStaging(name string) error {
	for outside := filepath.Dir(t.data.path); name != outside; {
		name = filepath.Dir(name)
		if err := t.fsys.SyncDir(name); err != nil {
			return err
		}
	}
	return nil
}

func (t *Target) writeIntent(early *publication, last publication, id string) error {
	content, err := describe(t.fsys, early.from)
	if err != nil {
		return err
	}
	commit := last.to
	if !t.into {
		// Not the directory itself: the user may create it before the next call.
		entries, err := t.fsys.ReadDir(last.from)
		if err != nil {
			return err
		}
		commit = filepath.Join(last.to, entries[0].Name())
	}
	early.intent = &intent{
		Name:    fileName(filepath.Base(early.to)),
		Commit:  fileName(commit),
		Staged:  fileName(t.data.path),
		ID:      id,
		Content: content,
	}
	return early.lock.writeIntent(early.intent)
}

func (t *Target) publish(p publication) error {
	err := t.fsys.RenameNoReplace(p.from, p.to)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %w", ErrExists, err)
	}
	if err != nil {
		return err
	}
	t.published = append(t.published, p)
	return t.fsys.SyncDir(filepath.Dir(p.to))
}

// leave removes the lock directories. It removes the intent only now that the
// publication that the intent waits for is durable.
func (t *Target) leave() error {
	t.leaving = true
	for _, l := range t.locks() {
		if err := l.clear(); err != nil {
			return err
		}
	}
	for _, l := range t.locks() {
		if err := l.release(); err != nil {
			return err
		}
		if err := t.fsys.SyncDir(filepath.Dir(l.path)); err != nil {
			return err
		}
	}
	return t.fsys.drop()
}

// locks returns the lock directories that are held, in the order of publication.
func (t *Target) locks() []*lockDir {
	var locks []*lockDir
	for _, l := range []*lockDir{t.wal, t.data} {
		if l != nil {
			locks = append(locks, l)
		}
	}
	return locks
}

// Cleanup removes everything that is staged. If Commit failed, it also removes
// what Commit published, Dir before WALDir, and the directories above that Open
// created, if they are empty. It does nothing after a Commit that succeeded.
// Calling it again is harmless.
//
// It continues after an error, with one exception: if the disk fails again while
// it removes published directories, either Dir stays, complete, or only WALDir
// does; the next Open repairs that.
func (t *Target) Cleanup() error {
	if t.done {
		return nil
	}
	t.done = true
	var errs []error
	err := t.rollBack()
	errs = append(errs, err)
	for _, l := range t.locks() {
		if err == nil && !l.free && l.recovered {
			errs = append(errs, l.clear())
		}
		errs = append(errs, l.release(), l.close())
	}
	errs = append(errs, t.fsys.drop(), removeCreated(t.fsys, t.created))
	return errors.Join(errs...)
}

// rollBack removes what is published, the commit point first.
func (t *Target) rollBack() error {
	for _, p := range t.published {
		if p.intent == nil || !t.leaving {
			continue
		}
		// It may be removed already, but from now on it is needed again.
		if err := p.lock.writeIntent(p.intent); err != nil {
			return fmt.Errorf("roll back %s: write intent: %w", p.to, err)
		}
	}
	for i := len(t.published) - 1; i >= 0; i-- {
		p := t.published[i]
		if err := p.lock.trash(p.to); err != nil {
			return fmt.Errorf("roll back %s: %w", p.to, err)
		}
		if p.intent == nil {
			continue
		}
		if err := p.lock.fsys.Remove(p.lock.join(intentName)); ignoreNotExist(err) != nil {
			return err
		}
	}
	return nil
}
