package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain lets the command start itself again from a test.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == cmdServe || os.Args[1] == cmdRun) {
		main()
		return
	}
	os.Exit(m.Run())
}

// The whole command at the smallest size: it creates the database, every
// operation of both implementations succeeds, and a second run uses the same
// database.
func TestBenchmark(t *testing.T) {
	needDisk(t)
	dir := t.TempDir()
	jsonFile, svgFile := filepath.Join(dir, "out.json"), filepath.Join(dir, "out.svg")
	opts, err := parseFlags([]string{
		"-size", "1MB", "-n", "2", "-value", "500", "-dir", filepath.Join(dir, "cache"),
		"-json", jsonFile, "-svg", svgFile,
	}, io.Discard)
	require.NoError(t, err)
	var out, log bytes.Buffer
	require.NoError(t, benchmark(t.Context(), opts, &out, &log), log.String())

	text, err := os.ReadFile(jsonFile)
	require.NoError(t, err)
	var rep report
	require.NoError(t, json.Unmarshal(text, &rep))
	require.Len(t, rep.Results, len(operations))
	for i, res := range rep.Results {
		require.Equal(t, operations[i].Name, res.Operation)
		require.InEpsilon(t, 1e6, res.Size, 0.3)
		require.NotZero(t, res.Keys)
		for _, v := range res.Variants {
			require.Len(t, v.Samples, 2, "%s, %s", res.Title, v.Name)
			require.Contains(t, out.String(), res.Title)
			for _, s := range v.Samples {
				require.Positive(t, s.Seconds)
				require.Positive(t, s.CPUSeconds)
				require.Greater(t, s.PeakRSS, s.PeakAnon)
				require.Positive(t, s.PeakAnon)
				if operations[i].Cold {
					require.LessOrEqual(t, s.Cached, coldShare)
				} else {
					require.GreaterOrEqual(t, s.Cached, warmShare)
				}
			}
			if v.Role == rolePeer {
				require.Positive(t, v.PerOurs)
			}
		}
	}
	status := rep.Results[1]
	require.JSONEq(t, string(status.find(rolePeer).Samples[0].Outcome), string(status.find(roleOurs).Samples[0].Outcome))
	svg, err := os.ReadFile(svgFile)
	require.NoError(t, err)
	require.Contains(t, string(svg), "</svg>")

	caches, err := filepath.Glob(filepath.Join(dir, "cache", "*", "snapshot.db"))
	require.NoError(t, err)
	require.Len(t, caches, 1)
	require.NoDirExists(t, filepath.Join(filepath.Dir(caches[0]), "scratch"))

	before, err := os.Stat(caches[0])
	require.NoError(t, err)
	out.Reset()
	opts.only, opts.runs, opts.json, opts.svg, opts.add = operations[1:2], 1, "", "", jsonFile
	require.NoError(t, benchmark(t.Context(), opts, &out, &log))
	require.Contains(t, out.String(), operations[0].Title, "of the earlier run")
	require.Contains(t, out.String(), "1 to 2 runs of each")
	after, err := os.Stat(caches[0])
	require.NoError(t, err)
	require.Equal(t, before.ModTime(), after.ModTime(), "the database was made again")
}

// Results from another machine, or with other values, are not added.
func TestAddOfAnotherRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.json")
	rep := report{Machine: machine{Cores: 2, Time: time.Now()}, ValueSize: 100, Results: []result{{Operation: "status"}}}
	require.NoError(t, rep.writeJSON(path))
	same := report{Machine: machine{Cores: 2}, ValueSize: 100}
	require.NoError(t, same.addJSON(path))
	require.Equal(t, rep.Results, same.Results)
	for name, other := range map[string]report{
		"machine": {Machine: machine{Cores: 4}, ValueSize: 100},
		"values":  {Machine: machine{Cores: 2}, ValueSize: 200},
	} {
		require.ErrorContains(t, other.addJSON(path), "measured on", name)
		require.Empty(t, other.Results)
	}
	require.ErrorIs(t, (&report{}).addJSON(path+".none"), os.ErrNotExist)
	require.NoError(t, os.WriteFile(path, []byte("{"), 0o600))
	require.Error(t, (&report{}).addJSON(path))
}

func TestDatabaseOfAnInterruptedRunIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	db, err := openDatabase(t.Context(), dir, minDatabase, 100, io.Discard)
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(db.dir, "database.json")))
	require.NoError(t, os.WriteFile(db.snapshotPath(), []byte("half"), 0o600))
	db, err = openDatabase(t.Context(), dir, minDatabase, 100, io.Discard)
	require.NoError(t, err)
	info, err := os.Stat(db.snapshotPath())
	require.NoError(t, err)
	require.Equal(t, db.Size, info.Size())
	require.InEpsilon(t, minDatabase, db.Size, 0.3, "keys of the interrupted run are in it")
}

// A variant that fails is reported, and does not hide the others.
func TestFailingVariant(t *testing.T) {
	dir := t.TempDir()
	db := &database{dir: dir, Size: 1000}
	require.NoError(t, os.WriteFile(db.snapshotPath(), bytes.Repeat([]byte("no database"), 100), 0o600))
	var log bytes.Buffer
	res, err := measureOperation(t.Context(), db, operations[1], 2, &log)
	require.ErrorContains(t, err, oursName+": ")
	require.ErrorContains(t, err, peerName+": ")
	require.Len(t, res.Variants[0].Samples, 2, "the floor needs no database")
	var table bytes.Buffer
	require.NoError(t, report{Results: []result{res}}.writeTable(&table))
	require.Contains(t, table.String(), "failed: Status, warm, "+oursName)
}

func TestParseFlags(t *testing.T) {
	opts, err := parseFlags([]string{"-sizes", "0.1, 2GiB", "-only", "restore,save"}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, []int64{100_000_000, 2 << 30}, opts.sizes)
	require.Equal(t, 5, opts.runs)
	require.True(t, filepath.IsAbs(opts.dir))
	var names []string
	for _, op := range opts.only {
		names = append(names, op.Name)
	}
	require.Equal(t, []string{"save", "restore"}, names)

	opts, err = parseFlags(nil, io.Discard)
	require.NoError(t, err)
	require.Equal(t, []int64{2_000_000_000}, opts.sizes)
	require.Len(t, opts.only, len(operations))

	for _, bad := range []string{
		"-size 1MB -sizes 1,2", "-size 10kB", "-size x", "-sizes 1,,2", "-n 0", "-value 0",
		"-value 9999999", "-only statsu", "-unknown", "extra",
	} {
		_, err := parseFlags(strings.Fields(bad), io.Discard)
		require.Error(t, err, bad)
	}
}
