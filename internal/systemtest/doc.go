// Package systemtest tests the API as a program uses it, and treats the disk, the
// kernel and the server as hostile. It has nothing but tests. Each file says what
// it proves, and README.md lists the promises with the commands.
//
// Flags: -every tries each failure point instead of a sample, -damaged and -soak
// say how much, -update rewrites golden files. With -short a slice of each suite
// runs; what needs strace, mounts, a cold disk or a load on etcd is skipped.
package systemtest
