package meter_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/meter"
)

// What was read twice counts once, and only Finish reports the end. If the total
// is unknown, it is what was counted.
func TestProgressEnds(t *testing.T) {
	const total = 8 << 20
	for _, known := range []int64{total, 0} {
		type report struct{ done, total int64 }
		var reports []report
		m := meter.Report(func(phase meter.Phase, done, total int64) {
			require.Equal(t, meter.Read, phase)
			reports = append(reports, report{done, total})
		}).Start(meter.Read, known)
		for range total >> 20 {
			m.Add(1 << 20)
		}
		if known > 0 {
			m.Add(3 << 20)
			for _, p := range reports {
				require.Less(t, p.done, p.total)
			}
		}
		m.Finish()
		require.Equal(t, report{total, total}, reports[len(reports)-1])
	}
}

func TestNoReport(t *testing.T) {
	m := meter.Report(nil).Start(meter.Read, 1)
	require.Nil(t, m)
	m.Add(1)
	m.Finish()
}
