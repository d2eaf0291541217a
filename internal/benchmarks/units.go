package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

var sizeUnits = []struct {
	suffix string
	bytes  float64
}{
	// Longer suffixes first: "B" ends all of them.
	{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"kB", 1e3}, {"B", 1},
}

// parseSize reads a size in bytes. A number without a unit is in GB (10^9).
func parseSize(s string) (int64, error) {
	num, unit := strings.TrimSpace(s), 1e9
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(num, u.suffix); ok {
			num, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	f, err := strconv.ParseFloat(num, 64)
	if err != nil {
		return 0, fmt.Errorf("size %q: not a number with a unit", s)
	}
	n := f * unit
	if !(n >= minDatabase && n <= 1e15) {
		return 0, fmt.Errorf("size %q: must be at least %s", s, formatBytes(minDatabase))
	}
	return int64(n), nil
}

// formatBytes writes n with three digits in decimal units.
func formatBytes(n int64) string {
	f, unit := float64(n), "B"
	for _, u := range []string{"kB", "MB", "GB"} {
		if f < 999.5 {
			break
		}
		f, unit = f/1000, u
	}
	return trimZeros(digits3(f)) + " " + unit
}

// formatSeconds writes a duration with three digits.
func formatSeconds(s float64) string {
	switch {
	case s < 0.9995e-3:
		return digits3(s*1e6) + " µs"
	case s < 0.9995:
		return digits3(s*1e3) + " ms"
	case s < 599.5:
		return digits3(s) + " s"
	}
	return (time.Duration(s) * time.Second).String()
}

func formatRatio(r float64) string { return digits3(r) + "×" }

func digits3(f float64) string {
	switch a := math.Abs(f); {
	case a >= 99.95:
		return strconv.FormatFloat(f, 'f', 0, 64)
	case a >= 9.995:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return strconv.FormatFloat(f, 'f', 2, 64)
}

func trimZeros(s string) string {
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}
