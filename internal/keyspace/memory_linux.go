package keyspace

import "golang.org/x/sys/unix"

// A table is filled evenly, so all its memory is needed at once: taking it page
// by page costs Status a tenth of its time.
const populate = unix.MAP_POPULATE
