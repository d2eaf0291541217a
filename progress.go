package snapshot

// meter adds up the bytes of one phase of one operation and reports them, but
// not for every few. It belongs to the goroutine of the caller, to whom a report
// may panic. A nil meter does nothing.
type meter struct {
	report func(Progress)
	now    Progress
	next   int64 // bytes done at which the next report is due
}

const minProgressStep = 1 << 20

func (m *V3Manager) newMeter(op string, phase Phase, total int64) *meter {
	if m.progress == nil {
		return nil
	}
	mt := &meter{report: m.progress, now: Progress{Op: op, Phase: phase, Total: total}}
	mt.report(mt.now)
	mt.next = mt.step()
	return mt
}

func (mt *meter) step() int64 { return max(minProgressStep, mt.now.Total/256) }

// add counts n more bytes.
func (mt *meter) add(n int64) {
	if mt == nil {
		return
	}
	mt.now.Done += n
	if mt.now.Total > 0 {
		// What was read twice counts once, and the end is finish's to tell.
		mt.now.Done = min(mt.now.Done, mt.now.Total-1)
	}
	if mt.now.Done >= mt.next {
		mt.next = mt.now.Done + mt.step()
		mt.report(mt.now)
	}
}

// finish reports that all is done.
func (mt *meter) finish() {
	if mt == nil {
		return
	}
	if mt.now.Total == 0 {
		mt.now.Total = mt.now.Done
	}
	mt.now.Done = mt.now.Total
	mt.report(mt.now)
}
