package differential_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	peer "go.etcd.io/etcd/etcdutl/v3/snapshot"
	"golang.org/x/sys/unix"
)

// referenceEnv makes the test binary the reference process: bbolt and etcd read
// damaged files there, because many of those end the process.
const referenceEnv = "DIFFERENTIAL_REFERENCE"

func TestMain(m *testing.M) {
	if os.Getenv(referenceEnv) != "" {
		if err := judgeAll(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	os.Exit(m.Run())
}

// verdict is what bbolt's checker and etcd's Status make of a file.
type verdict struct {
	CheckError  string      `json:"checkError"` // bbolt refuses to open the file, or finds errors
	Status      peer.Status `json:"status"`     // if StatusError is empty too
	StatusError string      `json:"statusError"`
	// Died says how the reader ended instead of answering.
	Died string `json:"died"`
}

func (v verdict) String() string {
	text, err := json.Marshal(v)
	return fmt.Sprint(string(text), err)
}

// judgeAll answers each line of in, a path, with a line of out.
func judgeAll(in io.Reader, out io.Writer) error {
	// A damaged file may ask for any amount of memory, or recurse for ever.
	limit := unix.Rlimit{Cur: 16 << 30, Max: 16 << 30}
	if err := unix.Setrlimit(unix.RLIMIT_AS, &limit); err != nil {
		return err
	}
	debug.SetMaxStack(32 << 20)
	debug.SetPanicOnFault(true)
	paths := bufio.NewScanner(in)
	enc := json.NewEncoder(out)
	for paths.Scan() {
		if err := enc.Encode(judge(paths.Text())); err != nil {
			return err
		}
	}
	return paths.Err()
}

// judge catches the panics that can be caught, which spares new processes.
func judge(path string) (v verdict) {
	defer func() {
		if r := recover(); r != nil {
			v = verdict{Died: fmt.Sprint("panic: ", r)}
		}
	}()
	if err := checkFile(path); err != nil {
		v.CheckError = err.Error()
		return v
	}
	var err error
	if v.Status, err = peer.NewV3(silent).Status(path); err != nil {
		v.StatusError = err.Error()
	}
	return v
}

func checkFile(path string) error {
	db, err := bbolt.Open(path, 0o400, &bbolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	var found []error
	err = db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			found = append(found, err)
		}
		return nil
	})
	return errors.Join(append(found, err, db.Close())...)
}

// reference is a running reference process, replaced when it dies.
type reference struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	pipe   *os.File
	output *json.Decoder
}

func startReference(t testing.TB) *reference {
	t.Helper()
	r := &reference{}
	r.start(t)
	return r
}

func (r *reference) start(t testing.TB) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	r.cmd = exec.Command(self)
	r.cmd.Env = append(os.Environ(), referenceEnv+"=1")
	r.stdin, err = r.cmd.StdinPipe()
	require.NoError(t, err)
	var w *os.File
	r.pipe, w, err = os.Pipe() // which has read deadlines
	require.NoError(t, err)
	r.output, r.cmd.Stdout = json.NewDecoder(r.pipe), w
	require.NoError(t, r.cmd.Start())
	require.NoError(t, w.Close())
}

func (r *reference) stop() {
	_ = r.stdin.Close()
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait() // its exit status is that of a killed process
	_ = r.pipe.Close()
}

// judge returns the verdict on a file. A process that ends is asked once more
// as a new one, since a panic that was caught before may have left behind what
// ended it; only the second end is put down to the file.
func (r *reference) judge(t testing.TB, path string) verdict {
	t.Helper()
	v, ok := r.ask(path)
	if !ok && v.Died != hangs {
		r.stop()
		r.start(t)
		v, ok = r.ask(path)
	}
	if !ok {
		r.stop()
		r.start(t)
	}
	return v
}

// ask is not ok if the process has ended, or has to be.
func (r *reference) ask(path string) (v verdict, ok bool) {
	if _, err := fmt.Fprintln(r.stdin, path); err != nil {
		return verdict{Died: "has ended before: " + err.Error()}, false
	}
	if err := r.pipe.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return verdict{Died: err.Error()}, false
	}
	switch err := r.output.Decode(&v); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return verdict{Died: hangs}, false
	case err != nil:
		return verdict{Died: "ends the process"}, false
	}
	return v, true
}

const hangs = "hangs"
