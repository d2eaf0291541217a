package keyspace

import "golang.org/x/sys/unix"

// All of a slab is used soon, and faulting it in page by page would cost more.
const populate = unix.MAP_POPULATE
