package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// report is everything that was measured.
type report struct {
	Machine   machine  `json:"machine"`
	ValueSize int      `json:"valueSize"` // bytes
	Results   []result `json:"results"`
}

// result is one operation on one database.
type result struct {
	Operation string          `json:"operation"`
	Title     string          `json:"title"`
	Size      int64           `json:"size"` // bytes of the snapshot
	Keys      int64           `json:"keys"`
	Variants  []variantResult `json:"variants"`
}

type variantResult struct {
	Name    string   `json:"name"`
	Role    role     `json:"role"`
	Samples []sample `json:"samples"`
	Error   string   `json:"error,omitempty"`

	Seconds  summary `json:"seconds"`
	PeakRSS  int64   `json:"peakRSS"`  // bytes, the most of all runs
	PeakAnon int64   `json:"peakAnon"` // bytes, the most of all runs
	// PerOurs is the time of this variant over the time of ours: the median of
	// the ratios of each run's pair. Zero if there is no pair.
	PerOurs float64 `json:"perOurs"`
}

func (v variantResult) values(of func(sample) float64) []float64 {
	values := make([]float64, len(v.Samples))
	for i, s := range v.Samples {
		values[i] = of(s)
	}
	return values
}

func seconds(s sample) float64    { return s.Seconds }
func cpuOf(s sample) float64      { return s.CPUSeconds }
func peakRSSOf(s sample) float64  { return float64(s.PeakRSS) }
func peakAnonOf(s sample) float64 { return float64(s.PeakAnon) }

// evaluate computes the figures from the samples. It returns an error if a variant
// failed, or if the outcomes of two runs differ.
func (r *result) evaluate() error {
	var failed error
	ours := r.find(roleOurs)
	var outcome json.RawMessage
	for i := range r.Variants {
		v := &r.Variants[i]
		if v.Error != "" {
			failed = errors.Join(failed, fmt.Errorf("%s: %s", v.Name, v.Error))
		}
		v.Seconds = summarize(v.values(seconds))
		v.PeakRSS = int64(summarize(v.values(peakRSSOf)).Max)
		v.PeakAnon = int64(summarize(v.values(peakAnonOf)).Max)
		if ours != nil {
			if ratios := pairwise(v.values(seconds), ours.values(seconds)); len(ratios) > 0 {
				v.PerOurs = median(ratios)
			}
		}
		if v.Role == roleFloor {
			continue
		}
		for _, s := range v.Samples {
			if outcome == nil {
				outcome = s.Outcome
			}
			if !bytes.Equal(outcome, s.Outcome) {
				failed = errors.Join(failed, fmt.Errorf("%s returned %s, want %s", v.Name, s.Outcome, outcome))
				break
			}
		}
	}
	return failed
}

func (r *result) find(want role) *variantResult {
	for i := range r.Variants {
		if r.Variants[i].Role == want {
			return &r.Variants[i]
		}
	}
	return nil
}

// addJSON adds the results of an earlier run on the same machine.
func (r *report) addJSON(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var earlier report
	if err := json.Unmarshal(text, &earlier); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	now, then := r.Machine, earlier.Machine
	now.Time, then.Time = time.Time{}, time.Time{}
	if now != then || r.ValueSize != earlier.ValueSize {
		return fmt.Errorf("%s: measured on %+v with values of %d bytes, this is %+v with %d bytes",
			path, then, earlier.ValueSize, now, r.ValueSize)
	}
	r.Results = append(r.Results, earlier.Results...)
	return nil
}

func (r report) writeJSON(path string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o666)
}

// writeTable writes a block for each size, the growth from one size to the next,
// and the machine.
func (r report) writeTable(w io.Writer) error {
	var b strings.Builder
	bySize := r.sizes()
	for _, size := range bySize {
		fmt.Fprintf(&b, "Snapshot of %s, %d keys\n\n", formatBytes(size), r.keys(size))
		rows := [][]string{{"", "", "median", "min", "max", "CPU", "RSS", "anon", "× ours"}}
		for _, res := range r.Results {
			if res.Size == size {
				rows = append(rows, res.rows()...)
			}
		}
		alignRows(&b, rows)
		for _, res := range r.Results {
			for _, v := range res.Variants {
				if res.Size == size && v.Error != "" {
					fmt.Fprintf(&b, "failed: %s, %s: %s\n", res.Title, v.Name, v.Error)
				}
			}
		}
		b.WriteString("\n")
	}
	if len(bySize) > 1 {
		b.WriteString("Growth with the size of the snapshot: median, and its ratio to the one before\n\n")
		alignRows(&b, r.growth(bySize))
		b.WriteString("\n")
	}
	r.writeConditions(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r result) rows() [][]string {
	var rows [][]string
	title := r.Title
	for _, v := range r.Variants {
		row := []string{title, v.Name, "failed", "", "", "", "", "", ""}
		if len(v.Samples) > 0 {
			ratio := "1"
			if v.Role != roleOurs {
				ratio = "–"
				if v.PerOurs > 0 {
					ratio = formatRatio(v.PerOurs)
				}
			}
			row = []string{
				title, v.Name,
				formatSeconds(v.Seconds.Median), formatSeconds(v.Seconds.Min), formatSeconds(v.Seconds.Max),
				formatSeconds(median(v.values(cpuOf))),
				formatBytes(v.PeakRSS), formatBytes(v.PeakAnon), ratio,
			}
		}
		rows = append(rows, row)
		title = ""
	}
	return rows
}

// growth has a row for each variant and two columns for each size.
func (r report) growth(sizes []int64) [][]string {
	head := []string{"", ""}
	for i, size := range sizes {
		if i > 0 {
			head = append(head, formatRatio(float64(size)/float64(sizes[i-1])))
		}
		head = append(head, formatBytes(size))
	}
	rows := [][]string{head}
	for _, first := range r.Results {
		if first.Size != sizes[0] {
			continue
		}
		title := first.Title
		for i, v := range first.Variants {
			row := []string{title, v.Name}
			title = ""
			var before float64
			for n, size := range sizes {
				var now float64
				for _, res := range r.Results {
					if res.Size == size && res.Operation == first.Operation && i < len(res.Variants) {
						now = res.Variants[i].Seconds.Median
					}
				}
				ratio, cell := "–", "–"
				if now > 0 {
					cell = formatSeconds(now)
					if before > 0 {
						ratio = formatRatio(now / before)
					}
				}
				if n > 0 {
					row = append(row, ratio)
				}
				row, before = append(row, cell), now
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// writeConditions writes what the figures depend on.
func (r report) writeConditions(b *strings.Builder) {
	m := r.Machine
	fmt.Fprintf(b, "%s, %d cores, %s of memory, %s, %s, %s, etcd %s; %s\n",
		m.CPU, m.Cores, formatBytes(m.Memory), m.Kernel, m.FileSystem, m.Go, m.Etcd, m.Time.Format("2006-01-02 15:04 MST"))
	fmt.Fprintf(b, "%s runs of each, in turn; values of %d bytes; \"× ours\" is the median of the ratios of neighbouring runs\n", r.runs(), r.ValueSize)
	var stolen []float64
	leastWarm := 1.0
	for _, res := range r.Results {
		for _, v := range res.Variants {
			stolen = append(stolen, v.values(func(s sample) float64 { return s.Stolen })...)
			for _, s := range v.Samples {
				if s.Cached > coldShare {
					leastWarm = min(leastWarm, s.Cached)
				}
			}
		}
	}
	if s := summarize(stolen); s.Max >= 0.005 {
		fmt.Fprintf(b, "the hypervisor took %.1f%% of the processors in the median run and %.1f%% in the worst\n", 100*s.Median, 100*s.Max)
	}
	if leastWarm < warmShare {
		fmt.Fprintf(b, "not all warm: a run began with %.1f%% of its input in the page cache\n", 100*leastWarm)
	}
}

// runs returns how many runs each variant had.
func (r report) runs() string {
	var counts []int
	for _, res := range r.Results {
		for _, v := range res.Variants {
			counts = append(counts, len(v.Samples))
		}
	}
	if len(counts) == 0 {
		return "no"
	}
	if least, most := slices.Min(counts), slices.Max(counts); least != most {
		return fmt.Sprintf("%d to %d", least, most)
	}
	return strconv.Itoa(counts[0])
}

// sizes returns the sizes of the results, in their order.
func (r report) sizes() []int64 {
	var sizes []int64
	seen := make(map[int64]bool)
	for _, res := range r.Results {
		if !seen[res.Size] {
			seen[res.Size] = true
			sizes = append(sizes, res.Size)
		}
	}
	return sizes
}

func (r report) keys(size int64) int64 {
	for _, res := range r.Results {
		if res.Size == size {
			return res.Keys
		}
	}
	return 0
}

// alignRows writes rows as columns: the first two to the left, figures to the
// right.
func alignRows(b *strings.Builder, rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			switch {
			case i == 0:
				line.WriteString(cell + pad)
			case i == 1:
				line.WriteString("  " + cell + pad)
			default:
				line.WriteString("  " + pad + cell)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}
