package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSummarize(t *testing.T) {
	for _, tc := range []struct {
		values []float64
		want   summary
	}{
		{nil, summary{}},
		{[]float64{3}, summary{3, 3, 3}},
		{[]float64{5, 1, 3}, summary{3, 1, 5}},
		{[]float64{4, 1, 2, 9}, summary{3, 1, 9}},
	} {
		require.Equal(t, tc.want, summarize(tc.values))
	}
	unsorted := []float64{2, 1}
	median(unsorted)
	require.Equal(t, []float64{2, 1}, unsorted)
}

func TestPairwise(t *testing.T) {
	require.Equal(t, []float64{2, 5}, pairwise([]float64{4, 10, 7}, []float64{2, 2}))
	require.Empty(t, pairwise([]float64{1}, []float64{0}))
}

func TestUnits(t *testing.T) {
	for s, want := range map[string]int64{
		"2": 2_000_000_000, "0.1": 100_000_000, "500MB": 500_000_000, "2GiB": 2 << 30, "1.5 GB": 1_500_000_000, "2000000B": 2_000_000, "2000kB": 2_000_000,
	} {
		got, err := parseSize(s)
		require.NoError(t, err, s)
		require.Equal(t, want, got, s)
	}
	for _, s := range []string{"", "GB", "-1", "NaN", "1e30", "12PB", "999kB"} {
		_, err := parseSize(s)
		require.Error(t, err, s)
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1 kB", 22_621_216: "22.6 MB", 999_600: "1 MB", 8_000_000_000: "8 GB", 128_000_000: "128 MB"} {
		require.Equal(t, want, formatBytes(n))
	}
	for s, want := range map[float64]string{0.0000125: "12.5 µs", 0.0213: "21.3 ms", 0.9996: "1.00 s", 4.2: "4.20 s", 44.04: "44.0 s", 3700: "1h1m40s"} {
		require.Equal(t, want, formatSeconds(s))
	}
}

// sampleResult has two runs of a peer three times slower than ours.
func sampleResult(size int64, scale float64) result {
	s := func(seconds float64) sample {
		return sample{Seconds: scale * seconds, CPUSeconds: seconds, PeakRSS: 40e6, PeakAnon: 9e6, Cached: 1, Outcome: json.RawMessage(`{"hash":1}`)}
	}
	res := result{Operation: "status", Title: "Status, warm", Size: size, Keys: 7, Variants: []variantResult{
		{Name: "read once", Role: roleFloor, Samples: []sample{{Seconds: scale, Cached: 1}, {Seconds: scale, Cached: 1}}},
		{Name: peerName, Role: rolePeer, Samples: []sample{s(6), s(9)}},
		{Name: oursName, Role: roleOurs, Samples: []sample{s(2), s(3)}},
	}}
	return res
}

func TestTable(t *testing.T) {
	a, b := sampleResult(100e6, 1), sampleResult(200e6, 2.5)
	require.NoError(t, a.evaluate())
	require.NoError(t, b.evaluate())
	rep := report{
		Machine:   machine{CPU: "CPU", Cores: 2, Memory: 8e9, Kernel: "Linux", FileSystem: "ext4", Go: "go1", Etcd: "v3"},
		ValueSize: 10, Results: []result{a, b},
	}
	var buf bytes.Buffer
	require.NoError(t, rep.writeTable(&buf))
	want, err := os.ReadFile(filepath.Join("testdata", "table.golden"))
	require.NoError(t, err)
	require.Equal(t, string(want), buf.String())
}

func TestConditions(t *testing.T) {
	res := sampleResult(100e6, 1)
	res.Variants[1].Samples[0].Stolen = 0.05
	res.Variants[1].Samples[1].Cached = 0.6
	var b strings.Builder
	report{Results: []result{res}}.writeConditions(&b)
	require.Contains(t, b.String(), "5.0% in the worst")
	require.Contains(t, b.String(), "60.0% of its input")
}

func TestAnswersThatDiffer(t *testing.T) {
	res := sampleResult(100e6, 1)
	res.Variants[2].Samples[1].Outcome = json.RawMessage(`{"hash":2}`)
	require.ErrorContains(t, res.evaluate(), `this package returned {"hash":2}, want {"hash":1}`)
}

func TestChart(t *testing.T) {
	for name, results := range map[string][]result{
		"one size":      {sampleResult(100e6, 1)},
		"several sizes": {sampleResult(100e6, 1), sampleResult(200e6, 2.5)},
		"failed":        {{Title: "Status, warm", Size: 1, Variants: []variantResult{{Name: peerName}, {Name: oursName}}}},
		"failed twice":  {{Title: "Status, warm", Size: 1}, {Title: "Status, warm", Size: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			rep := report{Results: results}
			for i := range rep.Results {
				_ = rep.Results[i].evaluate()
			}
			path := filepath.Join(t.TempDir(), "chart.svg")
			require.NoError(t, rep.writeChart(path))
			svg, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Contains(t, string(svg), ">Status, warm")
			require.NotContains(t, string(svg), "font-family:Liberation Serif;", "a font that is not everywhere, alone")
			if !strings.HasPrefix(name, "failed") {
				require.Contains(t, string(svg), ">this package<")
			}
		})
	}
	require.Error(t, report{}.writeChart(filepath.Join(t.TempDir(), "chart.svg")))
	require.Error(t, report{Results: []result{sampleResult(1e6, 1)}}.writeChart(t.TempDir()))
}
