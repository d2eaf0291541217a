// Package meter counts the bytes of an operation for its progress reports.
package meter

// Phase names a part of an operation.
type Phase string

// The phases that the operations report.
const (
	Download Phase = "download"
	Read     Phase = "read"
	Copy     Phase = "copy"
	Check    Phase = "check"
	Publish  Phase = "publish"
)

// Report gets the bytes of a phase so far, and its total: 0 if that is unknown.
type Report func(phase Phase, done, total int64)

// Meter adds up the bytes of one phase and reports them, at most once a mebibyte.
// It is for the caller's goroutine, where a report may panic. A nil Meter does
// nothing.
type Meter struct {
	report      Report
	phase       Phase
	done, total int64
	next        int64 // bytes done at which the next report is due
}

const minStep = 1 << 20

// Start reports that a phase of total bytes begins, and returns its Meter, nil for a
// nil Report.
func (report Report) Start(phase Phase, total int64) *Meter {
	if report == nil {
		return nil
	}
	m := &Meter{report: report, phase: phase, total: total}
	m.tell()
	m.next = m.step()
	return m
}

func (m *Meter) tell() { m.report(m.phase, m.done, m.total) }

func (m *Meter) step() int64 { return max(minStep, m.total/256) }

// Add counts n more bytes.
func (m *Meter) Add(n int64) {
	if m == nil {
		return
	}
	m.done += n
	if m.total > 0 {
		// What was read twice counts once, and only Finish reports the end.
		m.done = min(m.done, m.total-1)
	}
	if m.done >= m.next {
		m.next = m.done + m.step()
		m.tell()
	}
}

// Finish reports that all is done.
func (m *Meter) Finish() {
	if m == nil {
		return
	}
	if m.total == 0 {
		m.total = m.done
	}
	m.done = m.total
	m.tell()
}
