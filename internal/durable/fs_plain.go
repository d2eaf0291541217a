//go:build !unix && !windows

package durable

// openFilesAreBusy: whether files can be renamed and removed while they are
// open is not known here.
const openFilesAreBusy = true

func (osFS) SyncDir(string) error { return nil }

func retryEINTR(fn func() error) error { return fn() }

func isTooManyLinks(error) bool { return false }
