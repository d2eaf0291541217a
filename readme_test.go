package snapshot_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/short"
)

// pages are the documents that people read. internal/interop/RESULTS.md is
// compared with the servers' answers by its own module.
var pages = []string{
	"README.md", "CHANGELOG.md", "CONTRIBUTING.md",
	"internal/benchmarks/README.md", "internal/benchmarks/MIGRATION.md", "internal/systemtest/README.md",
}

func readPage(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	return string(text)
}

// The README is read in a few minutes.
func TestReadmeLength(t *testing.T) {
	require.LessOrEqual(t, len(strings.Fields(readPage(t, "README.md"))), 1300, "words")
}

// The function in the README does what it says, and the restore of one of three
// members compiles.
func TestReadmeProgram(t *testing.T) {
	short.Skip(t, "builds and runs a program")
	t.Parallel()
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(readPage(t, "README.md"), -1)
	require.Len(t, blocks, 2)
	function, statement := blocks[0][1], blocks[1][1]

	dir := t.TempDir()
	source, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	require.NoError(t, os.WriteFile(source, fmt.Appendf(nil, `package main
%s
func main() {
	if err := saveAndRestore(context.Background(), os.Args[1]); err != nil {
		panic(err)
	}
}
func restoreOneOfThree(ctx context.Context, m *snapshot.V3Manager) error {
%s	return err
}
`, strings.Replace(function, "import (", "import (\n\t\"os\"", 1), statement), 0o600))
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
	for _, db := range []string{"backup.db", "m1.etcd/member/snap/db"} {
		status, err := snapshot.New().Status(filepath.Join(dir, db))
		require.NoError(t, err)
		require.Equal(t, 3, status.TotalKey, db)
	}
}

// Every file and every heading that the pages link to is there.
func TestReadmeLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]*))?\)`)
	n := 0
	for _, page := range pages {
		for _, m := range link.FindAllStringSubmatch(readPage(t, page), -1) {
			target := page
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(page), m[1])
			}
			_, err := os.Stat(target)
			require.NoError(t, err, "%s links to %s", page, m[1])
			if m[2] != "" {
				require.Contains(t, anchors(readPage(t, target)), m[2], "%s links to %s", page, m[0])
			}
			n++
		}
	}
	require.Positive(t, n)
}

// anchors are what headings are linked by.
func anchors(page string) (names []string) {
	other := regexp.MustCompile(`[^\p{L}\p{N} -]`)
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		names = append(names, strings.ReplaceAll(strings.ToLower(other.ReplaceAllString(m[1], "")), " ", "-"))
	}
	return names
}

// The table of versions is the one that the servers gave.
func TestReadmeVersions(t *testing.T) {
	results := acrossVersions(readPage(t, "internal/interop/RESULTS.md"))
	require.Len(t, results, 7)
	require.Equal(t, results, acrossVersions(readPage(t, "README.md")))
}

// acrossVersions are the rows of the table of snapshots and servers.
func acrossVersions(page string) (rows []string) {
	for line := range strings.Lines(page) {
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

// The versions that an import requires are those in go.mod.
func TestReadmeRequirements(t *testing.T) {
	mod := readPage(t, "go.mod")
	version := func(pattern string) string {
		m := regexp.MustCompile(`(?m)^\s*` + pattern + `\s*$`).FindStringSubmatch(mod)
		require.Len(t, m, 2, pattern)
		return m[1]
	}
	says := fmt.Sprintf("requires Go %s, etcd's modules %s, gRPC %s and bbolt %s.", version(`go (\d+\.\d+)\.0`),
		version(`go\.etcd\.io/etcd/client/v3 (\S+)`), version(`google\.golang\.org/grpc (\S+)`), version(`go\.etcd\.io/bbolt (\S+)`))
	text := strings.Join(strings.Fields(readPage(t, "README.md")), " ")
	require.True(t, strings.Contains(text, says), "the README does not say: %s", says)
}

// The figures of an operation at a size are in one place.
func TestReadmeFiguresOnce(t *testing.T) {
	size, operation := regexp.MustCompile(`^\| (\d\.\d GB), `), regexp.MustCompile(`^\| ((?:Save|Status|Verify|Restore)[^|]*) \|`)
	pageOf := map[string]string{}
	for _, page := range []string{"README.md", "internal/benchmarks/README.md"} {
		table := ""
		for line := range strings.Lines(readPage(t, page)) {
			if m := size.FindStringSubmatch(line); m != nil {
				table = m[1]
			} else if m := operation.FindStringSubmatch(line); m != nil {
				figures := m[1] + " of " + table
				require.Empty(t, pageOf[figures], "%s is in %s as well", figures, page)
				pageOf[figures] = page
			}
		}
	}
	require.Len(t, pageOf, 4*7)
}

// The README and the package documentation name everything that can be called,
// and every error that can be matched.
func TestReadmeNamesAll(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "snapshot.go", nil, parser.ParseComments)
	require.NoError(t, err)
	words := regexp.MustCompile(`\w+`).FindAllString(readPage(t, "README.md")+file.Doc.Text(), -1)
	names := declaredNames(t)
	require.Subset(t, names, []string{"NewV3", "SaveTo", "ErrByteOrder", "RestoreConfig"})
	for _, name := range names {
		require.True(t, slices.Contains(words, name), "%s is in neither", name)
	}
}

// What the page on migration tells to call and to use is there.
func TestReadmeMigration(t *testing.T) {
	exported := exportedNames(t)
	require.True(t, exported["NewV3"] && exported["SaveTo"] && exported["AllowEmptyDataDir"])
	span, name := regexp.MustCompile("`[^`]*`"), regexp.MustCompile(`\b(?:snapshot\.|m\.)?([A-Z]\w*)`)
	n := 0
	for line := range strings.Lines(readPage(t, "internal/benchmarks/MIGRATION.md")) {
		there, here, found := strings.Cut(strings.Trim(line, "|\n "), " | ")
		if strings.HasPrefix(line, "## What differs") {
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

func parsedFiles(t *testing.T) (files []*ast.File) {
	t.Helper()
	paths, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		require.NoError(t, err)
		files = append(files, file)
	}
	return files
}

// declaredNames are the exported functions, methods, types and variables of the
// package. The methods of its error are those of every error.
func declaredNames(t *testing.T) (names []string) {
	t.Helper()
	add := func(name *ast.Ident) {
		if name.IsExported() && !slices.Contains(names, name.Name) {
			names = append(names, name.Name)
		}
	}
	for _, file := range parsedFiles(t) {
		for _, decl := range file.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				if decl.Recv == nil || receiver(decl) == "V3Manager" {
					add(decl.Name)
				}
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						add(spec.Name)
					case *ast.ValueSpec:
						if decl.Tok == token.VAR {
							for _, name := range spec.Names {
								add(name)
							}
						}
					}
				}
			}
		}
	}
	return names
}

func receiver(decl *ast.FuncDecl) string {
	kind := decl.Recv.List[0].Type
	if pointer, ok := kind.(*ast.StarExpr); ok {
		kind = pointer.X
	}
	name, _ := kind.(*ast.Ident)
	return name.String()
}

// exportedNames are those of the package, its methods and its fields.
func exportedNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, file := range parsedFiles(t) {
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

// imports are those of the production packages that from leads to. A path in the
// library is relative to it. The files of all platforms count.
func imports(t *testing.T, from string, found map[string][]string) {
	t.Helper()
	const library = "etcd.example/snapshot/internal/"
	files, err := filepath.Glob(filepath.Join(from, "*.go"))
	require.NoError(t, err)
	found[from] = nil
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, spec := range file.Imports {
			name := strings.Trim(spec.Path.Value, `"`)
			if strings.HasPrefix(name, library) {
				name = filepath.Join("internal", strings.TrimPrefix(name, library))
				if _, ok := found[name]; !ok {
					imports(t, name, found)
				}
			}
			if !slices.Contains(found[from], name) {
				found[from] = append(found[from], name)
			}
		}
	}
}

// The diagram of the packages shows their imports, but for those of fault.
func TestHouse(t *testing.T) {
	page := readPage(t, "CONTRIBUTING.md")
	diagram := regexp.MustCompile("(?s)```mermaid\nflowchart TD\n(.*?)```").FindStringSubmatch(page)
	require.NotNil(t, diagram)
	var drawn, real []string
	for line := range strings.Lines(diagram[1]) {
		from, to, ok := strings.Cut(strings.TrimSpace(line), " --> ")
		require.True(t, ok, line)
		for name := range strings.SplitSeq(to, " & ") {
			drawn = append(drawn, from+" --> "+name)
		}
	}

	found := map[string][]string{}
	imports(t, ".", found)
	for from, all := range found {
		if from != "." {
			line := "\n| [" + filepath.ToSlash(from) + "]("
			require.True(t, strings.Contains(page, line), "%s has no line in the table of CONTRIBUTING.md", from)
		}
		for _, to := range all {
			if dir, name := filepath.Split(to); filepath.ToSlash(dir) == "internal/" && name != "fault" {
				real = append(real, strings.Replace(filepath.Base(from), ".", "root", 1)+" --> "+name)
			}
		}
	}
	require.ElementsMatch(t, real, drawn)
}

// The library is built without what its tests are made of.
func TestHouseHasNoServer(t *testing.T) {
	found := map[string][]string{}
	imports(t, ".", found)
	require.Contains(t, found["."], "go.etcd.io/etcd/client/v3")
	for from, all := range found {
		for _, to := range all {
			for _, test := range []string{"internal/snaptest", "internal/systemtest", "go.etcd.io/bbolt", "go.etcd.io/etcd/server/"} {
				require.False(t, strings.HasPrefix(filepath.ToSlash(to), test), "%s imports %s", from, to)
			}
		}
	}
}
