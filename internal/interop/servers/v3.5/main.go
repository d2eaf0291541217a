// Command etcd is etcd's own server, v3.5.35, pinned by the go.mod beside it.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
