package main

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"math"
	"os"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

const (
	panelWidth  = 13 * vg.Centimeter
	panelHeight = 5.2 * vg.Centimeter
	barWidth    = 14 * vg.Length(1)
)

var (
	roleColors = map[role]color.Color{
		rolePeer:  color.RGBA{R: 0xc8, G: 0x5a, B: 0x2e, A: 0xff},
		roleOurs:  color.RGBA{R: 0x1f, G: 0x6f, B: 0xb4, A: 0xff},
		roleFloor: color.RGBA{R: 0xb4, G: 0xb8, B: 0xbe, A: 0xff},
	}
	ink = color.Gray{Y: 0x40}
)

// writeChart draws into an SVG file.
func (r report) writeChart(path string) error {
	grid, width, height, err := r.panels()
	if err != nil {
		return err
	}
	canvas := vgsvg.New(width, height)
	drawPanels(grid, draw.New(canvas))
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return err
	}
	// Not every system has the font that the text was measured with. These have
	// its metrics.
	text := strings.ReplaceAll(svg.String(), "font-family:Liberation Serif;", "font-family:Liberation Serif,Times New Roman,Times,serif;")
	return os.WriteFile(path, []byte(text), 0o644)
}

// panels has one for each operation: bars for one size, lines over the size
// for several.
func (r report) panels() (grid [][]*plot.Plot, width, height vg.Length, err error) {
	var panels []*plot.Plot
	sizes := r.sizes()
	for _, first := range r.Results {
		if first.Size != sizes[0] {
			continue
		}
		var p *plot.Plot
		if len(sizes) == 1 {
			p, err = barPanel(first)
		} else {
			p, err = r.linePanel(first.Operation, first.Title, sizes)
		}
		if err != nil {
			return nil, 0, 0, fmt.Errorf("%s: %w", first.Title, err)
		}
		panels = append(panels, p)
	}
	if len(panels) == 0 {
		return nil, 0, 0, errors.New("nothing was measured")
	}
	columns := min(2, len(panels))
	for row := range slices.Chunk(panels, columns) {
		grid = append(grid, append(row, make([]*plot.Plot, columns-len(row))...))
	}
	height = panelHeight
	if len(sizes) > 1 {
		height *= 1.5
	}
	return grid, vg.Length(columns) * panelWidth, vg.Length(len(grid)) * height, nil
}

func drawPanels(grid [][]*plot.Plot, dc draw.Canvas) {
	dc.SetColor(color.White)
	dc.Fill(dc.Rectangle.Path())
	tiles := draw.Tiles{
		Rows: len(grid), Cols: len(grid[0]),
		PadTop: 8, PadBottom: 8, PadLeft: 8, PadRight: 14, PadX: 18, PadY: 18,
	}
	for i, row := range plot.Align(grid, tiles, dc) {
		for j, c := range row {
			if grid[i][j] != nil {
				grid[i][j].Draw(c)
			}
		}
	}
}

func newPanel(title string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.Title.TextStyle.Color = ink
	p.Title.Padding = 6
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Color, a.Label.TextStyle.Color, a.Tick.Color, a.Tick.Label.Color = ink, ink, ink, ink
	}
	return p
}

// barPanel has a bar for each variant, the fastest floor at the top, with its
// median, and a line from the fastest to the slowest run.
func barPanel(res result) (*plot.Plot, error) {
	title := res.Title + ", " + formatBytes(res.Size)
	if p := res.find(rolePeer); p != nil && p.PerOurs > 0 {
		title += ": " + formatRatio(p.PerOurs) + " faster"
		if p.PerOurs < 1 {
			title = strings.TrimSuffix(title, "faster") + "as fast"
		}
	}
	p := newPanel(title)
	n := len(res.Variants)
	names := make([]string, n)
	longest := 0.0
	for i, v := range res.Variants {
		y := float64(n - 1 - i)
		names[n-1-i] = v.Name
		if len(v.Samples) == 0 {
			continue
		}
		longest = max(longest, v.Seconds.Max)
		bar, err := plotter.NewBarChart(plotter.Values{v.Seconds.Median}, barWidth)
		if err != nil {
			return nil, err
		}
		bar.Horizontal, bar.XMin = true, y
		bar.Color, bar.LineStyle.Width = roleColors[v.Role], 0
		label, err := plotter.NewLabels(plotter.XYLabels{
			XYs:    plotter.XYs{{X: v.Seconds.Max, Y: y}},
			Labels: []string{formatSeconds(v.Seconds.Median)},
		})
		if err != nil {
			return nil, err
		}
		label.TextStyle[0].Color, label.TextStyle[0].YAlign = ink, text.YCenter
		label.Offset = vg.Point{X: 5}
		p.Add(bar, label)
		if v.Seconds.Max > v.Seconds.Min {
			whisker, err := plotter.NewXErrorBars(span{v.Seconds, y})
			if err != nil {
				return nil, err
			}
			whisker.Color, whisker.CapWidth = ink, 5
			p.Add(whisker)
		}
	}
	p.NominalY(names...)
	p.Y.Min, p.Y.Max = -0.6, float64(n)-0.4
	p.X.Min, p.X.Max = 0, max(longest, 1e-6)*1.18 // space for the labels
	p.X.Tick.Marker = durationTicks{}
	return p, nil
}

// span is one median with its spread, for the error bars.
type span struct {
	summary
	y float64
}

func (s span) Len() int                           { return 1 }
func (s span) XY(int) (x, y float64)              { return s.Median, s.y }
func (s span) XError(int) (low, high float64)     { return s.Median - s.Min, s.Max - s.Median }
func (s spread) Len() int                         { return len(s.XYs) }
func (s spread) YError(i int) (low, high float64) { return s.low[i], s.high[i] }

// spread is a line of medians with their spreads.
type spread struct {
	plotter.XYs
	low, high []float64
}

func (r report) linePanel(operation, title string, sizes []int64) (*plot.Plot, error) {
	p := newPanel(title)
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	ticks := make(plot.ConstantTicks, len(sizes))
	for i, size := range sizes {
		ticks[i] = plot.Tick{Value: float64(size), Label: formatBytes(size)}
	}
	p.X.Tick.Marker = ticks
	p.Y.Tick.Marker = decadeTicks{}
	lines := make(map[string]*spread)
	var order []variantResult
	for _, res := range r.Results {
		if res.Operation != operation {
			continue
		}
		for _, v := range res.Variants {
			if len(v.Samples) == 0 {
				continue
			}
			l := lines[v.Name]
			if l == nil {
				l = &spread{}
				lines[v.Name] = l
				order = append(order, v)
			}
			l.XYs = append(l.XYs, plotter.XY{X: float64(res.Size), Y: v.Seconds.Median})
			l.low = append(l.low, v.Seconds.Median-v.Seconds.Min)
			l.high = append(l.high, v.Seconds.Max-v.Seconds.Median)
		}
	}
	floors := 0
	for _, v := range order {
		line, points, err := plotter.NewLinePoints(lines[v.Name].XYs)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width = roleColors[v.Role], 1.5
		points.Color, points.Shape, points.Radius = roleColors[v.Role], draw.CircleGlyph{}, 2.5
		if v.Role == roleFloor {
			line.Dashes = []vg.Length{4, vg.Length(2 + 3*floors)}
			floors++
		}
		bars, err := plotter.NewYErrorBars(*lines[v.Name])
		if err != nil {
			return nil, err
		}
		bars.Color = roleColors[v.Role]
		p.Add(line, points, bars)
		p.Legend.Add(v.Name, line, points)
	}
	// Times grow with the size: the corner on the lower right is free.
	p.Legend.YOffs, p.Legend.XOffs, p.Legend.Padding = 4, -4, 2
	p.Legend.TextStyle.Color = ink
	p.Y.Min, p.Y.Max = p.Y.Min/2, p.Y.Max*1.1
	if len(order) == 0 {
		// A logarithmic axis cannot show zero.
		p.X.Min, p.X.Max = float64(sizes[0]), float64(sizes[len(sizes)-1])
		p.Y.Min, p.Y.Max = 0.1, 1
	}
	return p, nil
}

// durationTicks labels seconds from zero on.
type durationTicks struct{}

func (durationTicks) Ticks(low, high float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(low, high)
	for i, t := range ticks {
		switch {
		case t.Label == "":
		case t.Value == 0:
			ticks[i].Label = "0"
		default:
			ticks[i].Label = shortSeconds(t.Value)
		}
	}
	return ticks
}

// decadeTicks labels 1, 2 and 5 of each power of ten.
type decadeTicks struct{}

func (decadeTicks) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for e := math.Floor(math.Log10(low)); e <= math.Ceil(math.Log10(high)); e++ {
		for m := 1.0; m < 10; m++ {
			t := plot.Tick{Value: m * math.Pow(10, e)}
			if t.Value < low || t.Value > high {
				continue
			}
			if m == 1 || m == 2 || m == 5 {
				t.Label = shortSeconds(t.Value)
			}
			ticks = append(ticks, t)
		}
	}
	return ticks
}

// shortSeconds drops the zeros of a round number: "2 s", "50 ms".
func shortSeconds(s float64) string {
	num, unit, _ := strings.Cut(formatSeconds(s), " ")
	return trimZeros(num) + " " + unit
}
