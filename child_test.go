package snapshot_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"etcd.example/snapshot"
)

// childJob in the environment makes the test binary carry out one operation and
// exit.
const childJob = "SNAPSHOT_TEST_CHILD"

// job is what a child is to do.
type job struct {
	Op       string // name of the operation
	Root     string
	Endpoint string // for Save
}

// report is what a child says on standard output before it exits.
type report struct {
	Err   string          // empty on success
	Errno []syscall.Errno // those that Err matches
}

func init() {
	if os.Getenv(childJob) != "" {
		// The system calls of the operation come from one thread: a tracer
		// counts those of each thread by itself.
		runtime.LockOSThread()
	}
}

func TestMain(m *testing.M) {
	if text := os.Getenv(childJob); text != "" {
		var j job
		if err := json.Unmarshal([]byte(text), &j); err != nil {
			panic(err)
		}
		out, err := json.Marshal(j.run())
		if err != nil {
			panic(err)
		}
		fmt.Println(string(out))
		return
	}
	os.Exit(m.Run())
}

func (j job) run() report {
	var r report
	for _, op := range append(restores(nil), saves(clientv3.Config{Endpoints: []string{j.Endpoint}, Logger: zap.NewNop()})...) {
		if op.name == j.Op {
			if err := op.run(snapshot.New(), j.Root); err != nil {
				r.Err = err.Error()
				for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EINTR, syscall.ENOMEM} {
					if errors.Is(err, errno) {
						r.Errno = append(r.Errno, errno)
					}
				}
			}
			return r
		}
	}
	panic("no operation " + j.Op)
}
