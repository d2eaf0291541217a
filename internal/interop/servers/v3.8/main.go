// Command etcd is etcd's own server, v3.8.0-alpha.0, pinned by the go.mod
// beside it. That go.mod names v3.8.0-alpha.0 of the api, client and pkg
// modules too: the server module as published still asks for v3.7.0-beta.0 of
// them, and a server built so would call itself 3.7.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
