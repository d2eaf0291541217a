//go:build !linux

package durable_test

func asNobody(_, _ string) {}
