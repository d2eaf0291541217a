//go:build !windows && (!unix || solaris || aix)

package boltfile

import "os"

const openNonblock = 0

// Without flock the file is read unlocked; a change under the reader is found
// as corruption at worst.
func lockShared(*os.File) error { return nil }
