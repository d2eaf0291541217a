//go:build !linux

package systemtest_test

import "etcd.example/snapshot"

func constrain(job) []snapshot.Option { return nil }
