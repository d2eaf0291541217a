package fetch_test

import (
	"crypto/sha256"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/trailer"
)

var unavailable = status.Error(codes.Unavailable, "not now")

const (
	// shortStall is long enough for a busy machine to get the next message
	// through.
	shortStall = 200 * time.Millisecond
	// longStall is for when no stall is wanted.
	longStall = 20 * time.Second
)

// fault is a way in which a server misbehaves.
type fault struct {
	// script gets a channel that is closed when the first message has arrived.
	script func(c *snaptest.SnapshotCall, db []byte, arrived <-chan struct{}) error
	want   error
	code   codes.Code // of the gRPC status, if it was the server that ended the stream
	text   string     // in the message
	held   bool       // the server holds on to its snapshot until it is let go of
}

var faults = map[string]fault{
	"stalls before the first message": {
		script: func(c *snaptest.SnapshotCall, _ []byte, _ <-chan struct{}) error { return c.Stall() },
		want:   snapshot.ErrStalled,
		held:   true,
	},
	"stalls in the middle": {
		script: func(c *snaptest.SnapshotCall, db []byte, _ <-chan struct{}) error {
			return errors.Join(c.SendPart(db[:2<<20], len(db), 0), c.Stall())
		},
		want: snapshot.ErrStalled,
		text: "got 2097152 bytes of 3153920 announced",
		held: true,
	},
	"stalls before the trailer": {
		script: func(c *snaptest.SnapshotCall, db []byte, _ <-chan struct{}) error {
			return errors.Join(c.SendDB(db), c.Stall())
		},
		want: snapshot.ErrStalled,
		held: true,
	},
	"stalls after the trailer": {
		script: func(c *snaptest.SnapshotCall, db []byte, _ <-chan struct{}) error {
			return errors.Join(c.SendSnapshot(db), c.Stall())
		},
		want: snapshot.ErrStalled,
		held: true,
	},
	"floods empty messages": {
		script: func(c *snaptest.SnapshotCall, _ []byte, _ <-chan struct{}) error { return c.Flood(0) },
		want:   snapshot.ErrStalled,
		held:   true,
	},
	"floods empty messages that announce": {
		script: func(c *snaptest.SnapshotCall, db []byte, _ <-chan struct{}) error { return c.Flood(int64(len(db))) },
		want:   snapshot.ErrStalled,
		text:   "got 0 bytes of 3153920 announced",
		held:   true,
	},
	"floods empty messages in the middle": {
		script: func(c *snaptest.SnapshotCall, db []byte, _ <-chan struct{}) error {
			return errors.Join(c.SendPart(db[:2<<20], len(db), 0), c.Flood(int64(len(db)-2<<20)))
		},
		want: snapshot.ErrStalled,
		held: true,
	},
	"sends nothing": {
		script: func(*snaptest.SnapshotCall, []byte, <-chan struct{}) error { return nil },
		want:   snapshot.ErrTruncated,
	},
	"announces and ends": {
		script: func(c *snaptest.SnapshotCall, db []byte, _ <-chan struct{}) error { return c.Send(nil, int64(len(db))) },
		want:   snapshot.ErrTruncated,
		text:   "got 0 bytes of 3153920 announced",
	},
	"ends early": {
		script: func(c *snaptest.SnapshotCall, db []byte, _ <-chan struct{}) error {
			return c.SendPart(db[:2<<20], len(db), 0)
		},
		want: snapshot.ErrTruncated,
		text: "got 2097152 bytes of 3153920 announced",
	},
	"ends early with an error": {
		script: func(c *snaptest.SnapshotCall, db []byte, arrived <-chan struct{}) error {
			if err := c.SendPart(db[:2<<20], len(db), 0); err != nil {
				return err
			}
			<-arrived
			return status.Error(codes.Internal, "disk on fire")
		},
		want: snapshot.ErrTruncated,
		code: codes.Internal,
		text: "disk on fire",
	},
	"resets the connection": {
		script: func(c *snaptest.SnapshotCall, db []byte, arrived <-chan struct{}) error {
			if err := c.SendPart(db[:2<<20], len(db), 0); err != nil {
				return err
			}
			<-arrived
			return c.Reset()
		},
		want: snapshot.ErrTruncated,
		code: codes.Unavailable,
	},
	"resets every connection before the first message": {
		script: func(c *snaptest.SnapshotCall, _ []byte, _ <-chan struct{}) error { return c.Reset() },
		want:   snapshot.ErrStalled,
	},
	"is never available": {
		script: func(*snaptest.SnapshotCall, []byte, <-chan struct{}) error { return unavailable },
		want:   snapshot.ErrStalled,
	},
	"refuses with an error of etcd's": {
		script: func(*snaptest.SnapshotCall, []byte, <-chan struct{}) error { return rpctypes.ErrGRPCPermissionDenied },
		want:   rpctypes.ErrPermissionDenied,
		code:   codes.PermissionDenied,
	},
	"omits the trailer": {
		script: func(c *snaptest.SnapshotCall, db []byte, _ <-chan struct{}) error { return c.SendDB(db) },
		want:   snapshot.ErrNoTrailer,
	},
	"cuts the trailer": {
		script: func(c *snaptest.SnapshotCall, db []byte, _ <-chan struct{}) error {
			sum := sha256.Sum256(db)
			return errors.Join(c.SendDB(db), c.Send(sum[:20], 0))
		},
		want: snapshot.ErrTruncated,
		text: "got 20 bytes of the trailer, want 32",
	},
	"damages the trailer": {
		script: func(c *snaptest.SnapshotCall, db []byte, _ <-chan struct{}) error {
			sum := sha256.Sum256(db)
			sum[31] ^= 1
			return errors.Join(c.SendDB(db), c.Send(sum[:], 0))
		},
		want: snapshot.ErrChecksum,
		text: "got f116a20d", // the digest of db
	},
	"flips a bit at the beginning": {script: flipBit(0), want: snapshot.ErrChecksum},
	"flips a bit in the middle":    {script: flipBit(3 << 19), want: snapshot.ErrChecksum},
	"flips a bit at the end":       {script: flipBit(3153919), want: snapshot.ErrChecksum},
	"swaps two messages": {
		script: func(c *snaptest.SnapshotCall, db []byte, _ <-chan struct{}) error {
			swapped := slices.Concat(db[32<<10:64<<10], db[:32<<10], db[64<<10:])
			sum := sha256.Sum256(db)
			return errors.Join(c.SendDB(swapped), c.Send(sum[:], 0))
		},
		want: snapshot.ErrChecksum,
	},
	"announces a page more":        {script: lie(4096), want: snapshot.ErrTruncated},
	"announces the trailer too":    {script: lie(trailer.Size), want: snapshot.ErrCorrupt, text: "announced 3153952 bytes, want a multiple of 512"},
	"announces a page less":        {script: lie(-4096), want: snapshot.ErrCorrupt, text: "announced were 3149824 and a trailer of 32"},
	"announces the first message":  {script: lie(-(3153920 - 32<<10)), want: snapshot.ErrCorrupt, text: "announced were 32768"},
	"announces an exbibyte":        {script: lie(1 << 60), want: snapshot.ErrTruncated, text: "of 1152921504610000896 announced"},
	"announces more than there is": {script: lie(math.MaxInt64), want: snapshot.ErrCorrupt, text: "announced 32768 bytes and 9223372036857896959 more"},
	"announces a negative number":  {script: lie(-3153920), want: snapshot.ErrCorrupt},
	"sends a trailer only": {
		script: func(c *snaptest.SnapshotCall, _ []byte, _ <-chan struct{}) error {
			sum := sha256.Sum256(nil)
			return c.Send(sum[:], 0)
		},
		want: snapshot.ErrCorrupt,
	},
	"sends a byte after the trailer": {
		script: func(c *snaptest.SnapshotCall, db []byte, _ <-chan struct{}) error {
			return errors.Join(c.SendSnapshot(db), c.Send([]byte{0}, 0))
		},
		want: snapshot.ErrCorrupt,
	},
	"sends the snapshot twice": {
		script: func(c *snaptest.SnapshotCall, db []byte, _ <-chan struct{}) error {
			return errors.Join(c.SendSnapshot(db), c.SendSnapshot(db))
		},
		want: snapshot.ErrCorrupt,
	},
	"sends for ever": {
		script: func(c *snaptest.SnapshotCall, db []byte, _ <-chan struct{}) error {
			for {
				if err := c.Send(db, int64(len(db))); err != nil {
					return err
				}
			}
		},
		want: snapshot.ErrCorrupt,
	},
	"sends a malformed message": {
		script: func(c *snaptest.SnapshotCall, _ []byte, _ <-chan struct{}) error { return c.SendRaw(cutBlob) },
		want:   snapshot.ErrCorrupt,
		text:   "after 0 bytes: malformed SnapshotResponse: field 3: got 4 bytes, want 5",
	},
	"sends a malformed message in the middle": {
		script: func(c *snaptest.SnapshotCall, db []byte, _ <-chan struct{}) error {
			return errors.Join(c.SendPart(db[:2<<20], len(db), 0), c.SendRaw(cutBlob), c.Stall())
		},
		want: snapshot.ErrCorrupt,
		text: "after 2097152 bytes: malformed SnapshotResponse",
		held: true,
	},
	"sends a malformed message after the trailer": {
		script: func(c *snaptest.SnapshotCall, db []byte, _ <-chan struct{}) error {
			return errors.Join(c.SendSnapshot(db), c.SendRaw(cutBlob))
		},
		want: snapshot.ErrCorrupt,
		text: "after 3153952 bytes: malformed SnapshotResponse",
	},
	"sends a malformed header and ends": {
		script: func(c *snaptest.SnapshotCall, _ []byte, _ <-chan struct{}) error { return c.SendRaw(cutHeader) },
		want:   snapshot.ErrCorrupt,
		text:   "after 0 bytes: malformed SnapshotResponse: header: ",
	},
	"sends a malformed header in the middle": {
		script: func(c *snaptest.SnapshotCall, db []byte, _ <-chan struct{}) error {
			return errors.Join(c.SendPart(db[:2<<20], len(db), 0), c.SendRaw(cutHeader), c.Stall())
		},
		want: snapshot.ErrCorrupt,
		text: "after 2097152 bytes: malformed SnapshotResponse: header: ",
		held: true,
	},
	"names a version that is no text and ends": {
		script: func(c *snaptest.SnapshotCall, _ []byte, _ <-chan struct{}) error { return c.SendRaw(binaryVersion) },
		want:   snapshot.ErrCorrupt,
		text:   `after 0 bytes: malformed SnapshotResponse: version "3\xff" is not UTF-8`,
	},
	"sends everything and ends with an error": {
		script: func(c *snaptest.SnapshotCall, db []byte, arrived <-chan struct{}) error {
			if err := c.SendSnapshot(db); err != nil {
				return err
			}
			<-arrived
			return status.Error(codes.DataLoss, "on second thought")
		},
		want: nil, // the status is all there is
		code: codes.DataLoss,
	},
}

// cutBlob is a message whose blob lacks a byte.
var cutBlob = []byte{0x1a, 5, 'p', 'a', 'g', 'e'}

// cutHeader is a message whose header has a tag without a value, and
// binaryVersion one whose version is not UTF-8.
var (
	cutHeader     = []byte{0x0a, 1, 0x08}
	binaryVersion = []byte{0x22, 2, '3', 0xff}
)

func flipBit(at int) func(*snaptest.SnapshotCall, []byte, <-chan struct{}) error {
	return func(c *snaptest.SnapshotCall, db []byte, _ <-chan struct{}) error {
		damaged := slices.Clone(db)
		damaged[at] ^= 0x10
		sum := sha256.Sum256(db)
		return errors.Join(c.SendDB(damaged), c.Send(sum[:], 0))
	}
}

func lie(bytes int64) func(*snaptest.SnapshotCall, []byte, <-chan struct{}) error {
	return func(c *snaptest.SnapshotCall, db []byte, _ <-chan struct{}) error {
		sum := sha256.Sum256(db)
		return errors.Join(c.SendPart(db, len(db), bytes), c.Send(sum[:], 0))
	}
}

func TestSaveFromFaultyServer(t *testing.T) {
	snaptest.NoLeaks(t)
	db := snaptest.Opaque(3<<20 + 8192)
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			run := func(t *testing.T, fetch apitest.SavedBy) {
				t.Parallel()
				arrived := make(chan struct{})
				arrive := sync.OnceFunc(func() { close(arrived) })
				s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return f.script(c, db, arrived) })
				m := func(stall time.Duration) apitest.Manager {
					return snapshot.New(snapshot.WithStallTimeout(stall), snapshot.WithProgress(func(p snapshot.Progress) {
						if p.Done == 0 {
							arrive()
						}
					}))
				}
				var err error
				if f.want == snapshot.ErrStalled {
					err = stalled(t, func(stall time.Duration) error {
						_, err := fetch(t.Context(), t, m(stall), s.ClientConfig())
						return err
					}, func(err error) bool { return len(s.Tokens()) > 0 && strings.Contains(err.Error(), f.text) })
				} else {
					_, err = fetch(t.Context(), t, m(longStall), s.ClientConfig())
				}
				require.Error(t, err)
				if f.want != nil {
					require.ErrorIs(t, err, f.want)
				}
				apitest.RequireNoOther(t, err, f.want)
				if f.code != codes.OK {
					require.Equal(t, f.code, status.Code(err), "%v", err)
				}
				require.Contains(t, err.Error(), f.text)
				if f.held {
					s.WaitReleased(t)
				}
			}
			apitest.SaveForms(t, run)
			t.Run("SaveFrom", func(t *testing.T) { run(t, saveByClient) })
		})
	}
}

// stalled runs save with a stall timeout and wants ErrStalled.
func stalled(t *testing.T, save func(stall time.Duration) error, reached func(error) bool) error {
	t.Helper()
	return timedOut(t, snapshot.ErrStalled, save, reached)
}

// timedOut runs save with a timeout and wants the error of that. On a busy
// machine it may not have come as far as the test wants, which is when reached
// is false; then it runs save again with more time.
func timedOut(t *testing.T, want error, save func(timeout time.Duration) error, reached func(error) bool) error {
	t.Helper()
	for timeout := shortStall; ; timeout *= 2 {
		err := save(timeout)
		require.ErrorIs(t, err, want)
		apitest.RequireNoOther(t, err, want)
		if reached(err) {
			return err
		}
		require.Less(t, timeout, longStall/4, "%v", err)
	}
}
