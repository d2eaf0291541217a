//go:build !windows && !unix

package boltfile

import "os"

const openNonblock = 0

func lockShared(*os.File) error { return nil }

func unlock(*os.File) error { return nil }
