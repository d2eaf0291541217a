// Package interop shows that snapshots of every etcd minor from 3.4 to 3.8 can
// be saved, judged, restored and booted, with the real servers as processes.
//
//	go test ./...             build the servers once, run the matrix, compare with RESULTS.md
//	go test . -update         the same, and write RESULTS.md anew
//	go run ./vectors          make ../../testdata/vectors anew
//
// The servers are kept in the user's cache directory. A version that cannot be
// had is skipped with its reason; the tests fail when fewer than three ran, or
// fewer than INTEROP_MIN if that is set.
package interop
