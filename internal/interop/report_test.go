package interop_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"etcd.example/snapshot/internal/interop/etcd"
)

// The facts, in the order of the report.
const (
	factAlone    = "Boots as one member, `HashKV` equal to the original's"
	factThree    = "Boots as three members, `HashKV` equal on each"
	factGoesOn   = "Writing, watching and reading go on"
	factJoins    = "A further member joins the restored one"
	factFourth   = "A fourth member joins the restored three; the cluster survives the loss of one of the four"
	factAgain    = "Restarts, and can be saved and verified again"
	factBumped   = "With `RevisionBump` and `MarkCompacted`"
	factTLS      = "Client and peer certificates, peers given by host name"
	factCopied   = "A `db` file copied from the directory of a killed server, with `SkipHashCheck`"
	factHashKV   = "`Reader.HashKV` equals what the members answer, at each revision and after each compaction"
	factMatch    = "`Match` of the snapshot with each of three members"
	factAt       = "`Match` once they have compacted at the snapshot's revision"
	factPast     = "`Match` once they have compacted past it"
	factStill    = "Alarm `NOSPACE` dropped, quota unchanged"
	factCluster  = "Cluster version"
	factStorage  = "Storage version in the file"
	factRevision = "Revisions, compacted revision, versions of keys"
	factIdentity = "Cluster id, member ids, names and URLs"
	factAuth     = "Users, roles, passwords"
	factLeases   = "Leases"
	factNoSpace  = "Alarm `NOSPACE`"
	factDisarm   = "`etcdctl alarm disarm`"
	factCorrupt  = "Alarm `CORRUPT`"
	factDropped  = "Either alarm, restored with `DropAlarms`"
)

var (
	works = []string{
		factAlone, factThree, factGoesOn, factJoins, factFourth, factAgain, factBumped, factTLS, factCopied,
		factHashKV, factMatch, factAt, factPast,
	}
	survives = []string{
		factRevision, factIdentity, factAuth, factLeases,
		factNoSpace, factCorrupt, factDisarm, factDropped, factStill,
		factCluster, factStorage,
	}
)

func (f findings) report() []byte {
	var b bytes.Buffer
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(&b, format+"\n", args...) }

	p("# Snapshots on real servers")
	p("")
	p("`go test . -update` in this directory writes this file from `testdata/results.json`. It records what the")
	p("servers did. `go test ./...` fails when one of them does something else.")
	p("")
	p("| etcd | server that ran |")
	p("|---|---|")
	for _, r := range etcd.Releases() {
		how := "built from `servers/v" + r.Minor + "`"
		if r.Minor == "3.4" {
			how = "Debian's package `etcd-server`"
		}
		p("| %s | %s, %s |", r.Minor, f.Servers[r.Minor], how)
	}

	p("")
	p("## Save, verify, restore, boot: the same version")
	p("")
	f.facts(p, works)
	p("")
	p("## What survives a restore")
	p("")
	f.facts(p, survives)

	p("")
	p("## Across versions")
	p("")
	p("Does the server (column) boot a restored snapshot of the version (row), serve all of it, accept writes, raise")
	p("the cluster and storage versions to its own, restart, and return a snapshot that verifies?")
	p("")
	head, rule := "| snapshot of \\ server |", "|---|"
	for _, to := range etcd.Releases() {
		head += " " + to.Minor + " |"
		rule += "---|"
	}
	p("%s\n%s", head, rule)
	var refusals []string
	for _, from := range etcd.Releases() {
		row := "| **" + from.Minor + "** |"
		for _, to := range etcd.Releases() {
			cell := "yes"
			if outcome := f.Across[from.Minor][to.Minor]; outcome != serves {
				cell = "**no**"
				refusals = append(refusals, fmt.Sprintf("- %s on %s %s", from.Minor, to.Minor, outcome))
			}
			row += " " + cell + " |"
		}
		p("%s", row)
	}
	p("")
	p("The servers' reasons. They give the same for a directory that etcdutl 3.7.3 restored:")
	p("")
	p("%s", strings.Join(refusals, "\n"))
	p("")
	p("Servers before 3.6 do not know the storage version and leave it in the file. They serve a newer snapshot, but")
	p("do not support it, and an upgrade may fail: a 3.7 snapshot served by 3.5 still has 3.7.0, and 3.6 refuses")
	p("that data directory: %s.", f.Stale)
	return b.Bytes()
}

// facts writes a table of facts. If the versions differ, it names them.
func (f findings) facts(p func(string, ...any), facts []string) {
	p("| | |")
	p("|---|---|")
	for _, fact := range facts {
		var values []string
		minors := map[string][]string{}
		for _, r := range etcd.Releases() {
			v := f.Facts[fact][r.Minor]
			if !slices.Contains(values, v) {
				values = append(values, v)
			}
			minors[v] = append(minors[v], r.Minor)
		}
		if len(values) == 1 {
			p("| %s | %s |", fact, values[0])
			continue
		}
		for i, v := range values {
			values[i] = strings.Join(minors[v], ", ") + ": " + v
		}
		p("| %s | %s |", fact, strings.Join(values, "; "))
	}
}
