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
	"strings"
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
		if err := serveQuestions(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	os.Exit(m.Run())
}

// verdict is what bbolt and etcd report for a file.
type verdict struct {
	Check  outcome // of bbolt's checker
	Status outcome // of etcd's Status, if the checker finds nothing
}

type outcome struct {
	Status peer.Status `json:"status"`
	Error  string      `json:"error"`
	Died   string      `json:"died"` // how the reader ended instead of returning
}

func (a outcome) ok() bool { return a.Error == "" && a.Died == "" }

// The requests to the reference process, each followed by a path.
const (
	askCheck  = "check "
	askStatus = "status "
)

// serveQuestions evaluates each line of in, a question, and writes a line to out.
func serveQuestions(in io.Reader, out io.Writer) error {
	// A damaged file may lead to any amount of memory, or endless recursion.
	limit := unix.Rlimit{Cur: 16 << 30, Max: 16 << 30}
	if err := unix.Setrlimit(unix.RLIMIT_AS, &limit); err != nil {
		return err
	}
	debug.SetMaxStack(32 << 20)
	debug.SetPanicOnFault(true)
	questions := bufio.NewScanner(in)
	enc := json.NewEncoder(out)
	for questions.Scan() {
		if err := enc.Encode(evaluate(questions.Text())); err != nil {
			return err
		}
	}
	return questions.Err()
}

// evaluate recovers from panics if possible, which saves new processes.
func evaluate(question string) (a outcome) {
	defer func() {
		if r := recover(); r != nil {
			a = outcome{Died: fmt.Sprint("panic: ", r)}
		}
	}()
	var err error
	if path, ok := strings.CutPrefix(question, askCheck); ok {
		err = checkFile(path)
	} else {
		a.Status, err = peer.NewV3(silent).Status(strings.TrimPrefix(question, askStatus))
	}
	if err != nil {
		return outcome{Error: err.Error()}
	}
	return a
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

func (r *reference) verdict(t testing.TB, path string) (v verdict) {
	t.Helper()
	v.Check = r.ask(t, askCheck+path)
	if v.Check.ok() {
		v.Status = r.ask(t, askStatus+path)
	}
	return v
}

// ask asks a question. If the process ends, ask repeats the question to a new one,
// since an earlier recovered panic may be the cause; only the second end is blamed
// on the file.
func (r *reference) ask(t testing.TB, question string) outcome {
	t.Helper()
	a, alive := r.askOnce(question)
	if !alive && a.Died != hangs {
		r.stop()
		r.start(t)
		a, alive = r.askOnce(question)
	}
	if !alive {
		r.stop()
		r.start(t)
	}
	return a
}

// askOnce is not alive if the process has ended, or has to be.
func (r *reference) askOnce(question string) (a outcome, alive bool) {
	if _, err := fmt.Fprintln(r.stdin, question); err != nil {
		return outcome{Died: "has ended before: " + err.Error()}, false
	}
	if err := r.pipe.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return outcome{Died: err.Error()}, false
	}
	switch err := r.output.Decode(&a); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return outcome{Died: hangs}, false
	case err != nil:
		return outcome{Died: "ends the process"}, false
	}
	return a, true
}

const hangs = "hangs"
