// Package interop shows that snapshots of every etcd minor from 3.4 to 3.8 can
// be saved, judged, restored and booted, with the real servers as processes.
//
//	go test -timeout 30m ./...   run the matrix and compare with RESULTS.md
//	go test . -update            the same, and write RESULTS.md anew
//	go run ./vectors             make ../../testdata/vectors anew
//
// The first run builds the servers, some minutes of work, into the user's
// cache directory; with them there, the matrix takes two to three minutes. A
// version that cannot be had is skipped with its reason. The tests fail when
// fewer than three versions ran, or fewer than INTEROP_MIN if that is set.
package interop
