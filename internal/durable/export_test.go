package durable

var (
	RenameIfAbsent = renameIfAbsent
	RetryEINTR     = retryEINTR
	LockPath       = lockPath
	Saturate       = saturate
)
