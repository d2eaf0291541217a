package bootstrap

var (
	EmptyBucket = emptyBucket
	Put         = put
)
