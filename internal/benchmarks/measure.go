package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// sample is one measured run.
type sample struct {
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpuSeconds"` // user and system time of the call
	PeakRSS    int64   `json:"peakRSS"`    // bytes resident, cached file pages that are mapped included
	PeakAnon   int64   `json:"peakAnon"`   // bytes of anonymous memory
	// Cached is the share of the input that was in the page cache before.
	Cached float64 `json:"cached"`
	// Stolen is the share of the processors that the hypervisor gave to others.
	Stolen  float64         `json:"stolen"`
	Outcome json.RawMessage `json:"outcome,omitempty"`
}

// runOne does the one job that in describes and writes its sample to out.
func runOne(ctx context.Context, in io.Reader, out io.Writer) error {
	var j job
	if err := json.NewDecoder(in).Decode(&j); err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	v, err := findVariant(j)
	if err != nil {
		return err
	}
	// From here on, VmHWM is the peak of the call.
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		return fmt.Errorf("reset the peak of resident memory: %w", err)
	}
	cpu, err := cpuSeconds()
	if err != nil {
		return err
	}
	start := time.Now()
	outcome, err := v.run(ctx, j)
	s := sample{Seconds: time.Since(start).Seconds()}
	if err != nil {
		return err
	}
	if s.CPUSeconds, err = cpuSeconds(); err != nil {
		return err
	}
	s.CPUSeconds -= cpu
	if s.PeakRSS, err = memory("self", "VmHWM"); err != nil {
		return err
	}
	if s.PeakAnon, err = memory("self", "RssAnon"); err != nil {
		return err
	}
	if outcome != nil {
		if s.Outcome, err = json.Marshal(outcome); err != nil {
			return err
		}
	}
	return json.NewEncoder(out).Encode(s)
}

// measure does a job in a process of its own and watches its memory from here,
// so that the watching is not in its figures.
func measure(ctx context.Context, j job) (sample, error) {
	var s sample
	self, err := os.Executable()
	if err != nil {
		return s, err
	}
	in, err := json.Marshal(j)
	if err != nil {
		return s, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, self, cmdRun)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &stdout, &stderr
	stolen, start := stolenSeconds(), time.Now()
	if err := cmd.Start(); err != nil {
		return s, err
	}
	done := make(chan struct{})
	peak := make(chan int64)
	go func() { peak <- watchAnon(strconv.Itoa(cmd.Process.Pid), done) }()
	err = cmd.Wait()
	close(done)
	anon := <-peak
	if err != nil {
		return s, fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	if err := json.Unmarshal(stdout.Bytes(), &s); err != nil {
		return s, fmt.Errorf("read the sample: %w", err)
	}
	s.PeakAnon = max(s.PeakAnon, anon)
	s.Stolen = (stolenSeconds() - stolen) / time.Since(start).Seconds() / float64(runtime.NumCPU())
	return s, nil
}

// watchAnon returns the most anonymous memory that process pid was seen with.
func watchAnon(pid string, done <-chan struct{}) (peak int64) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return peak
		case <-tick.C:
			// The process may have ended, or not have begun.
			if n, err := memory(pid, "RssAnon"); err == nil {
				peak = max(peak, n)
			}
		}
	}
}

// measureOperation runs every variant of op in turn, runs times. A variant that
// fails has no more runs; the others continue.
func measureOperation(ctx context.Context, db *database, op operation, runs int, log io.Writer) (_ result, err error) {
	res := result{Operation: op.Name, Title: op.Title, Size: db.Size, Keys: db.Keys}
	j := job{Operation: op.Name, Snapshot: db.snapshotPath(), Target: db.target()}
	input := j.Snapshot
	if op.Server {
		srv, err := startServer(db.serverDir())
		if err != nil {
			return res, err
		}
		defer func() { err = errors.Join(err, srv.stop()) }()
		j.Endpoint, input = srv.endpoint, db.serverDB()
	}
	res.Variants = make([]variantResult, len(op.Variants))
	for i, v := range op.Variants {
		res.Variants[i] = variantResult{Name: v.Name, Role: v.Role}
	}
	defer func() { err = errors.Join(err, os.RemoveAll(db.scratch())) }()
	for run := range runs {
		for i := range res.Variants {
			v := &res.Variants[i]
			if v.Error != "" {
				continue
			}
			s, err := prepareAndMeasure(ctx, j, v.Name, input, op.Cold)
			if ctx.Err() != nil {
				return res, ctx.Err()
			}
			if err != nil {
				v.Error = err.Error()
				continue
			}
			v.Samples = append(v.Samples, s)
			if _, err := fmt.Fprintf(log, "%s, %s, run %d of %d, %s: %s\n",
				formatBytes(db.Size), op.Title, run+1, runs, v.Name, formatSeconds(s.Seconds)); err != nil {
				return res, err
			}
		}
	}
	return res, res.evaluate()
}

// prepareAndMeasure gives each run the same start: no target, nothing left to write
// back, the input in the page cache or out of it.
func prepareAndMeasure(ctx context.Context, j job, variant, input string, cold bool) (sample, error) {
	scratch := filepath.Dir(j.Target)
	if err := os.RemoveAll(scratch); err != nil {
		return sample{}, err
	}
	if err := os.Mkdir(scratch, 0o700); err != nil {
		return sample{}, err
	}
	unix.Sync()
	prepare := warm
	if cold {
		prepare = cool
	}
	cached, err := prepare(input)
	if err != nil {
		return sample{}, err
	}
	j.Variant = variant
	s, err := measure(ctx, j)
	s.Cached = cached
	return s, err
}
