package snapshot_test

import "flag"

// What is too long for every run of the tests.
var damaged = flag.Int("damaged", 2000, "number of damaged files that Status is tried on")

func damagedFiles() int { return *damaged }
