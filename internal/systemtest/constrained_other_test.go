//go:build !linux

package systemtest_test

// Only Linux can limit a child as constrained_linux_test.go does.

import "etcd.example/snapshot"

func constrain(job) []snapshot.Option { return nil }
