package differential_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"etcd.example/snapshot"
)

// randomMembers returns a cluster as a user can write it down, in no order, and
// one of its members.
func randomMembers(rng *rand.Rand) (name string, urls []string, cluster string) {
	names := []string{"m", "ü näme", "名前", "<b>&amp;", `"q"\`, "a/b", "\u2028", strings.Repeat("long-", 100), "\x01"}
	rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	names = names[:1+rng.IntN(len(names))]
	var pairs []string
	for i, n := range names {
		urls = nil
		for range 1 + rng.IntN(4) {
			formats := []string{"http://10.0.%d.1:%d", "https://m%d.example:%d", "http://[fd00::%d]:%d", "unix://sock%d:%d", "http://u:p@h%d:%d?a=<&>"}
			urls = append(urls, fmt.Sprintf(formats[rng.IntN(len(formats))], i, len(pairs)+1))
			pairs = append(pairs, n+"="+urls[len(urls)-1])
		}
	}
	rng.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
	return names[len(names)-1], urls, strings.Join(pairs, ",")
}

func TestRestoreOfRandomClusters(t *testing.T) {
	for seed := range uint64(16) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 13))
			cfg := snapshot.RestoreConfig{SnapshotPath: withTrailer(t, randomHistory(seed).write(t))}
			cfg.Name, cfg.PeerURLs, cfg.InitialCluster = randomMembers(rng)
			cfg.InitialClusterToken = []string{"", "etcd-cluster", "<ü>"}[rng.IntN(3)]
			requireSameRestore(t, cfg)
		})
	}
}
