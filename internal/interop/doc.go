// Package interop shows that snapshots of every etcd minor version from 3.4 to 3.8
// can be saved, verified, restored and booted, with the real servers as processes.
//
//	go test -timeout 30m ./...   run the matrix and compare with RESULTS.md
//	go test . -update            the same, and rewrite RESULTS.md
//	go run ./vectors             regenerate ../../testdata/vectors
//
// The first run builds the servers in the user's cache directory, which takes some
// minutes. With them there, the matrix takes two to three minutes. It skips a
// version that it cannot get, with the reason. The tests fail if fewer than three
// versions ran, or fewer than INTEROP_MIN if that is set.
package interop
