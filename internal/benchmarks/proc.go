package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// memory returns the value in bytes of a field of /proc/<pid>/status, such as
// VmHWM or RssAnon. A process that has ended has none.
func memory(pid, field string) (int64, error) {
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0, err
	}
	return statusField(status, field)
}

func statusField(status []byte, field string) (int64, error) {
	for line := range bytes.Lines(status) {
		rest, ok := bytes.CutPrefix(line, []byte(field+":"))
		if !ok {
			continue
		}
		kb, ok := bytes.CutSuffix(bytes.TrimSpace(rest), []byte(" kB"))
		if !ok {
			return 0, fmt.Errorf("%s is not in kB: %q", field, rest)
		}
		n, err := strconv.ParseInt(string(kb), 10, 64)
		return n * 1024, err
	}
	return 0, fmt.Errorf("no %s in the process status", field)
}

// cpuSeconds is the user and system time that this process has used.
func cpuSeconds() (float64, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	seconds := func(t unix.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(u.Utime) + seconds(u.Stime), nil
}

// stolenSeconds is the time since boot that the hypervisor gave to others, summed
// over the processors.
func stolenSeconds() float64 {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	return stolenIn(string(stat))
}

func stolenIn(stat string) float64 {
	// cpu user nice system idle iowait irq softirq steal, in ticks of 10 ms
	first, _, _ := strings.Cut(stat, "\n")
	f := strings.Fields(first)
	if len(f) < 9 || f[0] != "cpu" {
		return 0
	}
	ticks, _ := strconv.ParseFloat(f[8], 64)
	return ticks / 100
}

// machine describes the machine of the measurements.
type machine struct {
	Time       time.Time `json:"time"`
	CPU        string    `json:"cpu"`
	Cores      int       `json:"cores"`
	Memory     int64     `json:"memory"` // bytes
	Kernel     string    `json:"kernel"`
	FileSystem string    `json:"fileSystem"` // of the benchmark's directory
	Go         string    `json:"go"`
	Etcd       string    `json:"etcd"` // version of the packages compared with
}

func describeMachine(dir string) machine {
	m := machine{
		Time: time.Now().UTC().Truncate(time.Second), Cores: runtime.NumCPU(), CPU: "unknown processor",
		Go: runtime.Version(), Etcd: peerVersion(), FileSystem: "unknown file system",
	}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		sc := bufio.NewScanner(bytes.NewReader(info))
		for sc.Scan() {
			if k, v, ok := strings.Cut(sc.Text(), ":"); ok && strings.TrimSpace(k) == "model name" {
				m.CPU = strings.TrimSpace(v)
				break
			}
		}
	}
	if info, err := os.ReadFile("/proc/meminfo"); err == nil {
		m.Memory, _ = statusField(info, "MemTotal")
	}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		m.Kernel = unix.ByteSliceToString(uts.Sysname[:]) + " " + unix.ByteSliceToString(uts.Release[:])
	}
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) == nil {
		m.FileSystem = fileSystemName(int64(fs.Type))
	}
	return m
}

func fileSystemName(magic int64) string {
	switch magic {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs"
	}
	return fmt.Sprintf("file system %#x", magic)
}

const peerModule = "go.etcd.io/etcd/etcdutl/v3"

func peerVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == peerModule {
				return dep.Version
			}
		}
	}
	return "unknown"
}
