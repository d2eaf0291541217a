package main

import "slices"

// summary is what the table shows of several runs.
type summary struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// summarize returns the zero summary for no values.
func summarize(values []float64) summary {
	if len(values) == 0 {
		return summary{}
	}
	return summary{Median: median(values), Min: slices.Min(values), Max: slices.Max(values)}
}

// median of at least one value; of an even number of values, the mean of the
// two in the middle. It leaves values in their order.
func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	mid := len(s) / 2
	if len(s)%2 == 1 {
		return s[mid]
	}
	return (s[mid-1] + s[mid]) / 2
}

// pairwise returns the ratios a[i]/b[i] of runs that took place next to each
// other, for as many as both have. A drift of the machine that outlasts a pair
// is in both and cancels out.
func pairwise(a, b []float64) []float64 {
	n := min(len(a), len(b))
	ratios := make([]float64, 0, n)
	for i := range n {
		if b[i] > 0 {
			ratios = append(ratios, a[i]/b[i])
		}
	}
	return ratios
}
