// Package etcd obtains real etcd servers and runs them as processes.
package etcd

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
)

// Release is one etcd minor version and the server that represents it.
type Release struct {
	Minor string // "3.5"

	fetch func(ctx context.Context, r *Release, cache string) (string, error)

	once    sync.Once
	path    string
	version string
	err     error
}

// Releases lists every supported minor version, oldest first.
func Releases() []*Release { return releases }

var releases = []*Release{
	{Minor: "3.4", fetch: fetchPackage},
	{Minor: "3.5", fetch: buildModule},
	{Minor: "3.6", fetch: buildModule},
	{Minor: "3.7", fetch: buildModule},
	{Minor: "3.8", fetch: buildModule},
}

// Get makes the server available, from the cache if it is there, and returns
// its path. The first call decides; an error states why it is not available.
func (r *Release) Get(ctx context.Context) (path string, err error) {
	r.once.Do(func() {
		r.path, r.version, r.err = r.get(ctx)
		if r.err != nil {
			r.err = fmt.Errorf("etcd %s: %w", r.Minor, r.err)
		}
	})
	return r.path, r.err
}

// Version is the full version that the server states, once Get has succeeded.
func (r *Release) Version() string { return r.version }

func (r *Release) get(ctx context.Context) (path, version string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", "", err
	}
	cache = filepath.Join(cache, "etcd-snapshot-interop")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", "", err
	}
	if path, err = r.fetch(ctx, r, cache); err != nil {
		return "", "", err
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", "", fmt.Errorf("ask %s for its version: %w", path, err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	version = strings.TrimPrefix(first, "etcd Version: ")
	if !strings.HasPrefix(version, r.Minor+".") {
		return "", "", fmt.Errorf("%s states version %q", path, version)
	}
	return path, version, nil
}

// ModuleDir is the directory of the interop module, found from any directory
// inside it.
func ModuleDir(ctx context.Context) (string, error) {
	const module = "etcd.example/snapshot/internal/interop"
	out, err := run(ctx, "", "go", "list", "-m", "-f", "{{.Dir}}", module)
	return strings.TrimSpace(out), err
}

// buildModule builds servers/v[Minor]. The binary is cached under a key computed
// from that module's files, the Go version and the platform.
func buildModule(ctx context.Context, r *Release, cache string) (string, error) {
	root, err := ModuleDir(ctx)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, "servers", "v"+r.Minor)
	key := sha256.New()
	_, _ = fmt.Fprintln(key, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, name := range []string{"main.go", "go.mod", "go.sum"} {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		_, err = io.Copy(key, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return "", err
		}
	}
	path := filepath.Join(cache, fmt.Sprintf("etcd-%s-%.6x", r.Minor, key.Sum(nil)))
	return cached(path, func(tmp string) error {
		_, err := run(ctx, dir, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", tmp, ".")
		return err
	})
}

// fetchPackage unpacks the server of Debian's etcd-server package. apt works
// in private directories: nothing is installed, and root is not needed.
func fetchPackage(ctx context.Context, r *Release, cache string) (string, error) {
	path := filepath.Join(cache, "etcd-"+r.Minor+"-debian")
	return cached(path, func(tmp string) (err error) {
		if _, err := exec.LookPath("apt-get"); err != nil {
			return fmt.Errorf("it comes from the distribution's etcd-server package: %w", err)
		}
		work, err := os.MkdirTemp(cache, "apt-")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
		if err := os.MkdirAll(filepath.Join(work, "lists", "partial"), 0o755); err != nil {
			return err
		}
		apt := func(args ...string) error {
			args = append([]string{"-qq",
				"-o", "APT::Sandbox::User=",
				"-o", "Dir::State::lists=" + filepath.Join(work, "lists"),
				"-o", "Dir::Cache=" + filepath.Join(work, "cache"),
			}, args...)
			_, err := run(ctx, work, "apt-get", args...)
			return err
		}
		// An update may fail because of a hook that requires root, although the
		// lists are in place: the download decides.
		update := apt("update")
		if err := apt("download", "etcd-server="+r.Minor+".*"); err != nil {
			return errors.Join(err, update)
		}
		debs, err := filepath.Glob(filepath.Join(work, "etcd-server_*.deb"))
		if err != nil || len(debs) != 1 {
			return fmt.Errorf("want one package file, got %q: %w", debs, err)
		}
		if _, err := run(ctx, work, "dpkg-deb", "-x", debs[0], "tree"); err != nil {
			return err
		}
		return os.Rename(filepath.Join(work, "tree", "usr", "bin", "etcd"), tmp)
	})
}

// cached returns path, and creates it first if necessary. Several processes may do
// so at once: each creates a file of its own, and a rename publishes it.
func cached(path string, build func(tmp string) error) (string, error) {
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), "new-")
	if err != nil {
		return "", err
	}
	tmp := filepath.Join(dir, "etcd")
	if err = build(tmp); err == nil {
		err = os.Rename(tmp, path)
	}
	return path, errors.Join(err, os.RemoveAll(dir))
}

// run runs a command and returns its standard output. If it fails, the error ends
// with its last output.
func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly")
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(stderr.String())
		if i := strings.LastIndexByte(said, '\n'); i >= 0 {
			said = said[i+1:]
		}
		return "", fmt.Errorf("%s %s: %w: %s", name, args[0], err, said)
	}
	return stdout.String(), nil
}
