package snapshot

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The timeouts of a zero manager are the defaults, and not none.
func TestZeroManagerTimeouts(t *testing.T) {
	connect, stall := timeouts(new(V3Manager))
	require.Equal(t, DefaultConnectTimeout, connect)
	require.Equal(t, DefaultStallTimeout, stall)
	for _, d := range []time.Duration{0, -1, -time.Hour} {
		connect, stall = timeouts(New(WithConnectTimeout(d), WithStallTimeout(d)))
		require.Negative(t, connect)
		require.Negative(t, stall)
	}
	connect, stall = timeouts(New(WithConnectTimeout(1), WithStallTimeout(2)))
	require.EqualValues(t, 1, connect)
	require.EqualValues(t, 2, stall)
}

func timeouts(m *V3Manager) (connect, stall time.Duration) {
	m = m.withDefaults()
	return m.connectTimeout, m.stallTimeout
}
