package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	peersave "go.etcd.io/etcd/client/v3/snapshot"
	peer "go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"

	"etcd.example/snapshot"
)

// role is what a measured variant is: etcd, this package or a floor.
type role string

const (
	rolePeer  role = "peer"
	roleOurs  role = "ours"
	roleFloor role = "floor"
)

// operation is something that both implementations can do, or ours alone, and
// the floors: the work that cannot be left out.
type operation struct {
	Name     string
	Title    string
	Cold     bool // the input is dropped from the page cache before each run
	Server   bool // needs a running server; its database is the input
	Variants []variant
}

type variant struct {
	Name string
	Role role
	// run is the measured call. Its outcome is compared between the peer and
	// ours; nil if it has none.
	run func(ctx context.Context, j job) (outcome any, err error)
}

// job is the input of a measured process.
type job struct {
	Operation string `json:"operation"`
	Variant   string `json:"variant"`
	Snapshot  string `json:"snapshot"` // file
	Target    string `json:"target"`   // file or directory to create; does not exist
	Endpoint  string `json:"endpoint"`
}

const (
	peerName = "etcd"
	oursName = "this package"
)

var operations = []operation{
	{Name: "save", Title: "Save", Server: true, Variants: []variant{
		{"stream discarded", roleFloor, discardStream},
		{peerName, rolePeer, peerSave},
		{oursName, roleOurs, oursSave},
	}},
	{Name: "status", Title: "Status, warm", Variants: []variant{
		{"read once", roleFloor, readFloor},
		{peerName, rolePeer, peerStatus},
		{oursName, roleOurs, oursStatus},
	}},
	{Name: "status-cold", Title: "Status, cold", Cold: true, Variants: []variant{
		{"read once", roleFloor, readFloor},
		{peerName, rolePeer, peerStatus},
		{oursName, roleOurs, oursStatus},
	}},
	{Name: "verify", Title: "Verify", Variants: []variant{
		{"SHA-256", roleFloor, hashFloor},
		{oursName, roleOurs, oursVerify},
	}},
	{Name: "restore", Title: "Restore", Variants: []variant{
		{"SHA-256", roleFloor, hashFloor},
		{"copy + fsync", roleFloor, copyFloor},
		{peerName, rolePeer, peerRestore(false)},
		{oursName, roleOurs, oursRestore(false)},
	}},
	{Name: "restore-cold", Title: "Restore, cold", Cold: true, Variants: []variant{
		{"copy + fsync", roleFloor, copyFloor},
		{peerName, rolePeer, peerRestore(false)},
		{oursName, roleOurs, oursRestore(false)},
	}},
	{Name: "restore-skip", Title: "Restore, SkipHashCheck", Variants: []variant{
		{"copy + fsync", roleFloor, copyFloor},
		{peerName, rolePeer, peerRestore(true)},
		{oursName, roleOurs, oursRestore(true)},
	}},
}

func operationNames() string {
	names := make([]string, len(operations))
	for i, op := range operations {
		names[i] = op.Name
	}
	return strings.Join(names, ",")
}

// selectOperations returns the operations with the names in a comma-separated
// list, in the order of the table; all of them for an empty list.
func selectOperations(list string) ([]operation, error) {
	if list == "" {
		return operations, nil
	}
	wanted := make(map[string]bool)
	for name := range strings.SplitSeq(list, ",") {
		wanted[strings.TrimSpace(name)] = true
	}
	var selected []operation
	for _, op := range operations {
		if wanted[op.Name] {
			selected = append(selected, op)
			delete(wanted, op.Name)
		}
	}
	for name := range wanted {
		return nil, fmt.Errorf("-only: no operation %q among %s", name, operationNames())
	}
	return selected, nil
}

func findVariant(j job) (variant, error) {
	for _, op := range operations {
		for _, v := range op.Variants {
			if op.Name == j.Operation && v.Name == j.Variant {
				return v, nil
			}
		}
	}
	return variant{}, fmt.Errorf("no %q of %q", j.Operation, j.Variant)
}

func peerSave(ctx context.Context, j job) (any, error) {
	if _, err := peersave.SaveWithVersion(ctx, zap.NewNop(), clientConfig(j.Endpoint), j.Target); err != nil {
		return nil, err
	}
	return fileSize(j.Target)
}

func oursSave(ctx context.Context, j job) (any, error) {
	if err := snapshot.New().Save(ctx, clientConfig(j.Endpoint), j.Target); err != nil {
		return nil, err
	}
	return fileSize(j.Target)
}

func fileSize(path string) (any, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return info.Size(), nil
}

func peerStatus(_ context.Context, j job) (any, error) {
	return peer.NewV3(zap.NewNop()).Status(j.Snapshot)
}

func oursStatus(ctx context.Context, j job) (any, error) {
	return snapshot.New().StatusContext(ctx, j.Snapshot)
}

func oursVerify(ctx context.Context, j job) (any, error) {
	return snapshot.New().Verify(ctx, j.Snapshot)
}

const peerURL = "http://127.0.0.1:2380"

func peerRestore(skipHashCheck bool) func(context.Context, job) (any, error) {
	return func(_ context.Context, j job) (any, error) {
		return nil, peer.NewV3(zap.NewNop()).Restore(peer.RestoreConfig{
			SnapshotPath: j.Snapshot, OutputDataDir: j.Target,
			Name: "default", PeerURLs: []string{peerURL}, InitialCluster: "default=" + peerURL,
			SkipHashCheck: skipHashCheck,
		})
	}
}

func oursRestore(skipHashCheck bool) func(context.Context, job) (any, error) {
	return func(ctx context.Context, j job) (any, error) {
		return nil, snapshot.New().RestoreContext(ctx, snapshot.RestoreConfig{
			SnapshotPath: j.Snapshot, OutputDataDir: j.Target,
			Name: "default", PeerURLs: []string{peerURL}, InitialCluster: "default=" + peerURL,
			SkipHashCheck: skipHashCheck,
		})
	}
}

// discardStream receives a snapshot and discards it.
func discardStream(ctx context.Context, j job) (_ any, err error) {
	cli, err := clientv3.New(clientConfig(j.Endpoint))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cli.Close()) }()
	resp, err := cli.SnapshotWithVersion(ctx)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, resp.Snapshot)
	return nil, errors.Join(err, resp.Snapshot.Close())
}

func readFloor(_ context.Context, j job) (any, error) {
	_, err := readOnce(j.Snapshot)
	return nil, err
}

func hashFloor(_ context.Context, j job) (_ any, err error) {
	f, err := os.Open(j.Snapshot)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	if _, err := io.CopyBuffer(h, f, make([]byte, 1<<20)); err != nil {
		return nil, err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// copyFloor copies the file with copy_file_range(2) if the file system has it, and
// syncs the copy and its directory.
func copyFloor(_ context.Context, j job) (_ any, err error) {
	src, err := os.Open(j.Snapshot)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dst, err := os.OpenFile(j.Target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if _, err := dst.ReadFrom(src); err != nil {
		return nil, err
	}
	if err := dst.Sync(); err != nil {
		return nil, err
	}
	dir, err := os.Open(filepath.Dir(j.Target))
	if err != nil {
		return nil, err
	}
	return nil, errors.Join(dir.Sync(), dir.Close())
}
