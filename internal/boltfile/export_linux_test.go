package boltfile

var ReadStretch = readStretch
