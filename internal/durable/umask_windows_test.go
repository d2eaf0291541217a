package durable_test

func setUmask(int) {}
