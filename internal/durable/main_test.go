package durable_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"etcd.example/snapshot/internal/durable"
)

// diskDir is where temporary files go by default, most likely a disk.
var diskDir = os.TempDir()

// childRole makes the test binary do one thing and wait to be killed.
const childRole = "DURABLE_TEST_CHILD"

func TestMain(m *testing.M) {
	if role := os.Getenv(childRole); role == unprivilegedRole {
		asUnprivileged(os.Args[1], os.Args[2])
		return
	} else if role != "" {
		if err := child(role, os.Args[1:]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	// The sweeps create tens of thousands of small files.
	const memory = "/dev/shm"
	if dir, err := os.MkdirTemp(memory, ""); err == nil {
		if os.Remove(dir) == nil && os.Setenv("TMPDIR", memory) != nil {
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// unprivilegedRole makes the test binary run asUnprivileged.
const unprivilegedRole = "unprivileged"

// child stages something, prints "ready" and waits until its input ends or it is
// killed.
func child(role string, args []string) error {
	switch role {
	case "file":
		f, err := durable.CreateFile(durable.OS, args[0])
		if err != nil {
			return err
		}
		if _, err := f.File().Write([]byte("half")); err != nil {
			return err
		}
	case "target":
		cfg := durable.TargetConfig{Dir: args[0], WALDir: args[1], AllowEmptyDir: args[2] == "into"}
		target, err := durable.Open(durable.OS, cfg)
		if err != nil {
			return err
		}
		if err := fill(durable.OS, target); err != nil {
			return err
		}
	case "umask":
		mask, err := strconv.ParseInt(args[0], 8, 32)
		if err != nil {
			return err
		}
		setUmask(int(mask))
		if err := saveAndPublish(args[1]); err != nil {
			return err
		}
	default:
		return fmt.Errorf("unknown role %q", role)
	}
	fmt.Println("ready")
	_, err := os.Stdin.Read(make([]byte, 1))
	return err
}
