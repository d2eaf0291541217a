//go:build !linux

package durable_test

func asUnprivileged(_, _ string) {}
