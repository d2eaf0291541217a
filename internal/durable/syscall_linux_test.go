package durable_test

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/durable"
)

// callName in the environment makes the test binary call one method of the
// operating system's FS, in the directory that callDir names, and say how it
// went.
const (
	callName = "DURABLE_TEST_CALL"
	callDir  = "DURABLE_TEST_DIR"
)

func init() {
	if name := os.Getenv(callName); name != "" {
		for _, c := range systemCalls {
			if c.name == name {
				fmt.Print(verdict(c.make(os.Getenv(callDir))))
			}
		}
		os.Exit(0)
	}
}

// verdict is "ok", "unsupported", "exists" or the last words of an error, which are those
// of the errno.
func verdict(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, errors.ErrUnsupported):
		return "unsupported"
	case errors.Is(err, fs.ErrExist):
		return "exists"
	}
	words := strings.Split(err.Error(), ": ")
	return words[len(words)-1]
}

// systemCalls are the methods of FS that are a system call which may fail in a
// way that means something.
var systemCalls = []struct {
	name, call string
	make       func(dir string) error
	// refused is what the method says where the call is not to be had, and
	// denied where a sandbox says so; empty where there is no way without.
	refused, denied string
	// lost says that any other error does not matter.
	lost bool
	// made is what the method says where all is well, "ok" if it is empty.
	made string
}{
	{name: "SyncDir", call: "fsync", refused: "ok", denied: "operation not permitted", make: func(dir string) error {
		return durable.OS.SyncDir(dir)
	}},
	{name: "SyncDir, closed", call: "close", make: func(dir string) error { return durable.OS.SyncDir(dir) }},
	{name: "StartWriteback", call: "sync_file_range", refused: "ok", denied: "ok", make: onFile(func(f durable.File) error {
		return durable.OS.StartWriteback(f, 0, 4096)
	})},
	{name: "AwaitWriteback", call: "sync_file_range", refused: "ok", denied: "ok", make: onFile(func(f durable.File) error {
		return durable.OS.AwaitWriteback(f, 0, 4096)
	})},
	{name: "DropCache", call: "fadvise64", refused: "ok", denied: "ok", lost: true, make: onFile(func(f durable.File) error {
		durable.OS.DropCache(f, 0, 4096)
		return nil
	})},
	{name: "Allocate", call: "fallocate", refused: "ok", denied: "ok", make: onFile(func(f durable.File) error {
		if err := durable.OS.Allocate(f, 12345); err != nil {
			return err
		}
		info, err := f.Stat()
		if err == nil && info.Size() != 12345 {
			err = fmt.Errorf("%d bytes", info.Size())
		}
		return err
	})},
	{name: "CopyRange", call: "copy_file_range", refused: "unsupported", denied: "unsupported", make: onFile(func(f durable.File) error {
		if _, err := f.Write([]byte("0123")); err != nil {
			return err
		}
		n, err := durable.OS.CopyRange(f, 4, f, 0, 4)
		if err == nil && n != 4 {
			err = fmt.Errorf("%d bytes", n)
		}
		return err
	})},
	{name: "TryLock", call: "flock", refused: "unsupported", denied: "unsupported", make: onFile(func(f durable.File) error {
		return durable.OS.TryLock(f)
	})},
	{name: "Unlock", call: "flock", refused: "ok", denied: "ok", make: onFile(func(f durable.File) error {
		return durable.OS.Unlock(f)
	})},
	{name: "FreeSpace", call: "statfs", refused: "unsupported", denied: "unsupported", make: func(dir string) error {
		n, err := durable.OS.FreeSpace(dir)
		if err == nil && n <= 0 {
			err = fmt.Errorf("%d bytes", n)
		}
		return err
	}},
	{name: "RenameNoReplace", call: "renameat2", refused: "ok", denied: "ok", make: func(dir string) error {
		from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
		if err := os.Mkdir(from, 0o700); err != nil {
			return err
		}
		if err := durable.OS.RenameNoReplace(from, to); err != nil {
			return err
		}
		_, err := os.Stat(to)
		return err
	}},
	{name: "RenameNoReplace over something", call: "renameat2", made: "exists", refused: "exists", denied: "exists", make: func(dir string) error {
		from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
		if err := errors.Join(os.Mkdir(from, 0o700), os.Mkdir(to, 0o700)); err != nil {
			return err
		}
		return durable.OS.RenameNoReplace(from, to)
	}},
	{name: "OpenFile", call: "openat", make: onFile(func(durable.File) error { return nil })},
	{name: "Mkdir", call: "mkdirat", make: func(dir string) error {
		return durable.OS.Mkdir(filepath.Join(dir, "d"), 0o700)
	}},
	{name: "OpenFile that cannot look", call: "fstat", make: func(dir string) error {
		f, err := durable.OS.OpenFile(filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return errors.Join(err, leftBehind(dir, "f"))
		}
		return f.Close()
	}},
	{name: "Mkdir that cannot look", call: "newfstatat", make: func(dir string) error {
		err := durable.OS.Mkdir(filepath.Join(dir, "d"), 0o700)
		if err != nil {
			return errors.Join(err, leftBehind(dir, "d"))
		}
		return nil
	}},
	{name: "Link", call: "linkat", make: func(dir string) error {
		return durable.OS.Link(filepath.Join(dir, "old"), filepath.Join(dir, "new"))
	}},
	{name: "Rename", call: "renameat", make: func(dir string) error {
		return durable.OS.Rename(filepath.Join(dir, "old"), filepath.Join(dir, "new"))
	}},
	{name: "Remove", call: "unlinkat", make: func(dir string) error {
		return durable.OS.Remove(filepath.Join(dir, "old"))
	}},
	{name: "ReadDir", call: "getdents64", make: func(dir string) error {
		_, err := durable.OS.ReadDir(dir)
		return err
	}},
	{name: "Lstat", call: "newfstatat", make: func(dir string) error {
		_, err := durable.OS.Lstat(dir)
		return err
	}},
	{name: "Readlink", call: "readlinkat", make: func(dir string) error {
		_, err := durable.OS.Readlink(filepath.Join(dir, "link"))
		return err
	}},
}

// leftBehind is an error if name is in dir. It looks in another way than a call
// that is made to fail.
func leftBehind(dir, name string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() == name {
			return errors.Join(err, fmt.Errorf("%s is left behind", name))
		}
	}
	return err
}

func onFile(do func(f durable.File) error) func(dir string) error {
	return func(dir string) error {
		f, err := durable.OS.OpenFile(filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		return errors.Join(do(f), f.Close())
	}
}

// Each system call is made, is repeated when a signal interrupts it, and is done
// without where it is not to be had; any other error comes back.
func TestSystemCalls(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skipf("no system call was made to fail: %v", err)
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	if out, err := exec.Command(strace, "-f", "--seccomp-bpf", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		t.Skipf("no system call was made to fail: strace cannot trace here: %v: %s", err, out)
	}
	for _, c := range systemCalls {
		call := c.call
		if runtime.GOARCH == "386" { // where some have another name
			names := map[string]string{"fadvise64": "fadvise64_64", "statfs": "statfs64", "newfstatat": "fstatat64", "fstat": "fstat64"}
			call = cmp.Or(names[call], call)
		}
		well, other := cmp.Or(c.made, "ok"), "input/output error"
		if c.lost {
			other = well
		}
		for errno, want := range map[string]string{
			"EIO": other, "EINTR:when=1": well, "ENOSYS": c.refused, "EINVAL": c.refused, "EOPNOTSUPP": c.refused, "ENOLCK": c.refused, "EPERM": c.denied,
		} {
			switch {
			case want == "": // there is no way without
				continue
			case c.call == "fsync" && errno == "ENOLCK", c.call == "close" && errno != "EIO": // these do not say so
				continue
			}
			t.Run(c.name+"/"+errno, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				require.NoError(t, os.WriteFile(filepath.Join(dir, "old"), nil, 0o600))
				require.NoError(t, os.Symlink("old", filepath.Join(dir, "link")))
				log := filepath.Join(t.TempDir(), "log")
				args := []string{"-f", "--seccomp-bpf", "-o", log, "-e", "trace=" + call, "-e", "inject=" + call + ":error=" + errno}
				for _, name := range []string{"", "f", "d", "from", "to", "old", "new", "link"} { // and no call of Go's own
					args = append(args, "-P", filepath.Join(dir, name))
				}
				cmd := exec.Command(strace, append(args, exe)...)
				cmd.Env = append(os.Environ(), callName+"="+c.name, callDir+"="+dir)
				out, err := cmd.Output()
				require.NoError(t, err)
				calls, err := os.ReadFile(log)
				require.NoError(t, err)
				require.Contains(t, string(calls), "(INJECTED)", "the call is not made")
				require.Equal(t, want, string(out))
				if errno == "EINTR:when=1" {
					require.GreaterOrEqual(t, strings.Count(string(calls), call+"("), 2, "made once and once more")
				}
			})
		}
	}
}

// None of them leaves anything open, whether it succeeds or not. No garbage
// collection closes what was forgotten.
func TestSystemCallsLeaveNothingOpen(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	open := func() (n int) {
		fds, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		for _, fd := range fds {
			target, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name()))
			if err == nil && strings.Contains(target, t.Name()) {
				n++
			}
		}
		return n
	}
	for _, c := range systemCalls {
		dir := t.TempDir()
		_ = c.make(dir)
		_ = c.make(dir) // where most of them fail
		require.Zero(t, open(), c.name)
	}
}
