//go:build snapshot

package main

import _ "etcd.example/snapshot"
