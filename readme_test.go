package snapshot_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/snaptest"
)

// pages are what people read first.
var pages = []string{"README.md", "CHANGELOG.md", "CONTRIBUTING.md"}

// The program in the README is built as it stands there, and does what the
// README says.
func TestReadmeProgram(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```go\n(package main\n.*?)```").FindAllSubmatch(readme, -1)
	require.Len(t, blocks, 1)

	dir := t.TempDir()
	source, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	require.NoError(t, os.WriteFile(source, blocks[0][1], 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, source).CombinedOutput()
	require.NoError(t, err, "%s", out)

	etcd := snaptest.Start(t)
	for _, key := range []string{"a", "b", "c"} {
		_, err := etcd.Client().Put(t.Context(), key, "value")
		require.NoError(t, err)
	}
	run := exec.CommandContext(t.Context(), program, etcd.Endpoint())
	run.Dir = dir
	out, err = run.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "backup.db: 3 keys at revision 4\n", string(out))
}

// Every file that the pages link to is there.
func TestReadmeLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	n := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			_, err := os.Stat(m[1])
			require.NoError(t, err, "%s links to %s", page, m[1])
			n++
		}
	}
	require.Positive(t, n)
}

// The table of versions is the one that the servers gave.
func TestReadmeVersions(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	results, err := os.ReadFile("internal/interop/RESULTS.md")
	require.NoError(t, err)
	for _, page := range [][]byte{results, readme} {
		require.Len(t, acrossVersions(page), 7)
	}
	require.Equal(t, acrossVersions(results), acrossVersions(readme))
}

// acrossVersions are the rows of the table of snapshots and servers.
func acrossVersions(page []byte) (rows []string) {
	for line := range strings.Lines(string(page)) {
		switch {
		case len(rows) == 0 && !strings.HasPrefix(line, `| snapshot of \ server |`):
		case !strings.HasPrefix(line, "|"):
			return rows
		default:
			rows = append(rows, line)
		}
	}
	return rows
}

// What the README tells to call and to use is there.
func TestReadmeNames(t *testing.T) {
	exported := exportedNames(t)
	require.True(t, exported["NewV3"] && exported["SaveTo"] && exported["AllowEmptyDataDir"])
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, migration, found := strings.Cut(string(readme), "\n## Migration\n")
	require.True(t, found)
	span, name := regexp.MustCompile("`[^`]*`"), regexp.MustCompile(`\b(?:snapshot\.|m\.)?([A-Z]\w*)`)
	n := 0
	for line := range strings.Lines(migration) {
		there, here, found := strings.Cut(strings.Trim(line, "|\n "), " | ")
		if strings.HasPrefix(line, "### What differs") {
			break
		}
		if !found || strings.Contains(there, "import ") {
			continue
		}
		if strings.HasPrefix(here, "the same") {
			here = there + here
		}
		for _, code := range span.FindAllString(here, -1) {
			for _, m := range name.FindAllStringSubmatch(code, -1) {
				require.True(t, exported[m[1]], "%s in: %s", m[1], line)
				n++
			}
		}
	}
	require.Greater(t, n, 10)
}

// exportedNames are those of the package, its methods and its fields.
func exportedNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				names[n.Name.Name] = true
				return false
			case *ast.TypeSpec:
				names[n.Name.Name] = true
			case *ast.ValueSpec:
				for _, name := range n.Names {
					names[name.Name] = true
				}
			case *ast.Field:
				for _, name := range n.Names {
					names[name.Name] = true
				}
			}
			return true
		})
	}
	return names
}
