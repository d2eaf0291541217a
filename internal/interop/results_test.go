package interop_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"etcd.example/snapshot/internal/interop/etcd"
)

const (
	recordPath = "testdata/results.json"
	reportPath = "RESULTS.md"
)

// findings is what the servers did. It is recorded in testdata/results.json;
// a run in which a server does something else fails.
type findings struct {
	Servers map[string]string            `json:"servers"`
	Facts   map[string]map[string]string `json:"facts"`  // fact, minor
	Across  map[string]map[string]string `json:"across"` // from, to
	Stale   string                       `json:"stale"`
}

type resultSet struct {
	mu sync.Mutex
	findings
}

var results resultSet

func (s *resultSet) server(r *etcd.Release) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Servers == nil {
		s.Servers = map[string]string{}
	}
	s.Servers[r.Minor] = r.Version()
}

func (s *resultSet) note(r *etcd.Release, fact, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set(&s.Facts, fact, r.Minor, value)
}

func (s *resultSet) noteAcross(from, to *etcd.Release, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set(&s.Across, from.Minor, to.Minor, value)
}

func (s *resultSet) noteStale(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Stale = reason
}

func set(m *map[string]map[string]string, row, column, value string) {
	if *m == nil {
		*m = map[string]map[string]string{}
	}
	if (*m)[row] == nil {
		(*m)[row] = map[string]string{}
	}
	(*m)[row][column] = value
}

// finish compares what was found with the record or, with -update, adds it.
// The version of a server is only recorded: the distribution's may change.
func (s *resultSet) finish() error {
	var record findings
	b, err := os.ReadFile(recordPath)
	if err == nil {
		err = json.Unmarshal(b, &record)
	}
	if err != nil && !(*update && errors.Is(err, os.ErrNotExist)) {
		return err
	}
	whole := !narrowed() && len(ran) == len(etcd.Releases())
	if *update {
		if whole {
			record = findings{}
		}
		return s.write(record)
	}
	if diffs := s.differ(record, whole); len(diffs) > 0 {
		return fmt.Errorf("the servers differ from %s:\n%s", recordPath, strings.Join(diffs, "\n"))
	}
	report, err := os.ReadFile(reportPath)
	if err != nil {
		return err
	}
	if !bytes.Equal(report, record.report()) {
		return fmt.Errorf("%s does not match %s: run with -update", reportPath, recordPath)
	}
	return nil
}

// differ lists what was found and is not in the record and, after a whole run,
// what is in the record and was not found.
func (s *resultSet) differ(record findings, whole bool) (diffs []string) {
	compare := func(what, got, want string) {
		if got != want && (got != "" || whole) {
			diffs = append(diffs, fmt.Sprintf("%s: got %q, want %q", what, got, want))
		}
	}
	for _, m := range []struct{ found, recorded map[string]map[string]string }{
		{s.Facts, record.Facts},
		{s.Across, record.Across},
	} {
		cells := map[string][2]string{}
		for row, columns := range m.recorded {
			for column, want := range columns {
				cells[row+", "+column] = [2]string{m.found[row][column], want}
			}
		}
		for row, columns := range m.found {
			for column, got := range columns {
				cells[row+", "+column] = [2]string{got, m.recorded[row][column]}
			}
		}
		for _, cell := range slices.Sorted(maps.Keys(cells)) {
			compare(cell, cells[cell][0], cells[cell][1])
		}
	}
	compare("stale storage version", s.Stale, record.Stale)
	return diffs
}

func (s *resultSet) write(record findings) error {
	if record.Servers == nil {
		record.Servers = map[string]string{}
	}
	maps.Copy(record.Servers, s.Servers)
	for row, cells := range s.Facts {
		for column, value := range cells {
			set(&record.Facts, row, column, value)
		}
	}
	for row, cells := range s.Across {
		for column, value := range cells {
			set(&record.Across, row, column, value)
		}
	}
	if s.Stale != "" {
		record.Stale = s.Stale
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(record); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(recordPath), 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(recordPath, b.Bytes(), 0o644),
		os.WriteFile(reportPath, record.report(), 0o644),
	)
}
