package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/snaptest/short"
)

const (
	library = "etcd.example/snapshot"
	client  = "go.etcd.io/etcd/client/v3"
)

// run runs a command with additions to the environment and returns its output.
func run(t *testing.T, env []string, command string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(command, args...)
	cmd.Env = append(os.Environ(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, syscall.ENOEXEC) {
		t.Skipf("%v: this test builds programs and runs them", err)
	}
	require.NoError(t, err, "%v: %s", cmd.Args, &stderr)
	return stdout.Bytes()
}

// registries builds the program in this directory, and returns what it prints.
func registries(t *testing.T, buildFlags ...string) map[string][]string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "imports.exe")
	run(t, nil, "go", append(append([]string{"build", "-o", program}, buildFlags...), ".")...)
	var found map[string][]string
	require.NoError(t, json.Unmarshal(run(t, nil, program), &found))
	return found
}

// A program that imports the package has the same in all its registries as with
// etcd's client alone.
func TestImportHasNoSideEffects(t *testing.T) {
	short.Skip(t, "builds two programs")
	with, without := registries(t, "-tags", "snapshot"), registries(t)
	for name, want := range without {
		require.Equal(t, want, with[name], name)
	}
	// The program does read the registries: these come with Go and the client.
	for name, entry := range map[string]string{
		"expvar variables":      "memstats",
		"gRPC codecs":           "proto: *proto.codecV2",
		"HTTP handlers":         "/debug/vars: http.HandlerFunc",
		"Prometheus collectors": `Desc{fqName: "go_goroutines", help: "Number of goroutines that currently exist.", constLabels: {}, variableLabels: {}}`,
		"protobuf files":        "rpc.proto",
	} {
		require.Contains(t, without[name], entry, name)
	}
}

// linked returns the packages that a program with the given import links: those of
// Go's standard library and the others.
func linked(t *testing.T, platform, pkg string) (others, standard []string) {
	t.Helper()
	goos, goarch, _ := strings.Cut(platform, "/")
	env := []string{"GOOS=" + goos, "GOARCH=" + goarch, "CGO_ENABLED=0"}
	out := run(t, env, "go", "list", "-deps", "-f", "{{.Standard}} {{.ImportPath}}", pkg)
	for line := range strings.Lines(string(out)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "true "); ok {
			standard = append(standard, path)
		} else {
			others = append(others, strings.TrimPrefix(strings.TrimSpace(line), "false "))
		}
	}
	return others, standard
}

// Besides the packages of etcd's client, the package links only its own and a few
// others.
func TestLinkedPackages(t *testing.T) {
	const most = 185
	allowed := []string{
		library,
		"go.etcd.io/etcd/pkg/v3/cpuutil", // by netutil
		"go.etcd.io/etcd/pkg/v3/netutil", // compares peer URLs
		"golang.org/x/sys",               // locks, reflinks, page cache
	}
	// These register a handler or variables if they are linked.
	effective := []string{"expvar", "net/http/pprof"}

	platforms := []string{"linux/amd64", "linux/386", "darwin/arm64", "windows/amd64"}
	for _, platform := range platforms[:short.Or(len(platforms), 1)] {
		t.Run(platform, func(t *testing.T) {
			ours, standard := linked(t, platform, library)
			clients, clientStandard := linked(t, platform, client)
			t.Logf("%d packages, %d of them etcd's client", len(ours), len(clients))
			require.NotEmpty(t, clients)
			require.LessOrEqual(t, len(ours), most)
			for _, pkg := range ours {
				known := slices.Contains(clients, pkg) || slices.ContainsFunc(allowed, func(root string) bool {
					return pkg == root || strings.HasPrefix(pkg, root+"/")
				})
				require.True(t, known, "%s is linked", pkg)
			}
			for _, pkg := range effective {
				require.Equal(t, slices.Contains(clientStandard, pkg), slices.Contains(standard, pkg), pkg)
			}
		})
	}
}
