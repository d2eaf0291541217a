package fetch_test

import (
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

func TestSaveToFailingWriter(t *testing.T) {
	db := snaptest.Opaque(3<<20 + 8192)
	for name, tc := range map[string]struct {
		fail func(p []byte) (int, error)
		want error
	}{
		"error":          {func([]byte) (int, error) { return 0, apitest.ErrFull }, apitest.ErrFull},
		"error and part": {func(p []byte) (int, error) { return len(p) / 2, apitest.ErrFull }, apitest.ErrFull},
		"short":          {func(p []byte) (int, error) { return len(p) - 1, nil }, io.ErrShortWrite},
		"too much":       {func(p []byte) (int, error) { return len(p) + 1, nil }, io.ErrShortWrite},
	} {
		t.Run(name, func(t *testing.T) {
			for nth := 1; nth <= 4; nth++ {
				snaptest.NoLeaks(t)
				last := nth == 4
				s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
					if last {
						return c.SendSnapshot(db)
					}
					return errors.Join(c.SendDB(db), c.Stall())
				})
				m := snapshot.New(snapshot.WithStallTimeout(longStall))
				saved, err := m.SaveTo(t.Context(), s.ClientConfig(), apitest.FailAt(nth, tc.fail))
				require.ErrorIs(t, err, tc.want, "write %d", nth)
				apitest.RequireNoOther(t, err, tc.want)
				require.Zero(t, saved)
				if !last {
					s.WaitReleased(t)
				}
			}
		})
	}
}

func TestSaveToPanickingWriter(t *testing.T) {
	snaptest.NoLeaks(t)
	db := snaptest.Opaque(3<<20 + 8192)
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return errors.Join(c.SendDB(db), c.Stall()) })
	w := apitest.FailAt(2, func([]byte) (int, error) { panic(apitest.ErrFull) })
	require.PanicsWithValue(t, apitest.ErrFull, func() { _, _ = snapshot.New().SaveTo(t.Context(), s.ClientConfig(), w) })
	s.WaitReleased(t)
}

// What the caller's own code takes is not counted against the server, which
// cannot send more meanwhile. On a busy machine the server itself may take too
// long; then it is tried again with more time, of which the caller takes more.
func TestSaveToSlowCaller(t *testing.T) {
	db := snaptest.Opaque(3<<20 + 8192)
	for _, slow := range []string{"writer", "report"} {
		t.Run(slow, func(t *testing.T) {
			snaptest.NoLeaks(t)
			for stall := time.Second; ; stall *= 2 {
				saved, err := saveToSlowCaller(t, slow, db, stall)
				if errors.Is(err, snapshot.ErrStalled) && stall < longStall/4 {
					continue
				}
				require.NoError(t, err)
				require.EqualValues(t, len(db)+32, saved.Size)
				return
			}
		})
	}
}

func saveToSlowCaller(t *testing.T, slow string, db []byte, stall time.Duration) (snapshot.Saved, error) {
	goOn := make(chan struct{})
	dawdle := sync.OnceFunc(func() {
		time.Sleep(stall + stall/4)
		close(goOn)
	})
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
		if err := c.SendPart(db[:2<<20], len(db), 0); err != nil {
			return err
		}
		select {
		case <-goOn:
		case <-c.Context().Done():
		}
		return c.Send(snaptest.WithTrailer(db)[2<<20:], 0)
	})
	m := snapshot.New(snapshot.WithStallTimeout(stall), snapshot.WithProgress(func(snapshot.Progress) {
		if slow == "report" {
			dawdle()
		}
	}))
	return m.SaveTo(t.Context(), s.ClientConfig(), apitest.WriterFunc(func(p []byte) (int, error) {
		if slow == "writer" {
			dawdle()
		}
		return len(p), nil
	}))
}

// Nobody touches a block while the writer has it.
func TestSaveToBlocksAreStableDuringWrite(t *testing.T) {
	db := snaptest.Opaque(12<<20 + 512)
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(db) })
	want := snaptest.WithTrailer(db)
	_, err := snapshot.New().SaveTo(t.Context(), s.ClientConfig(), apitest.WriterFunc(func(p []byte) (int, error) {
		time.Sleep(time.Millisecond)
		require.True(t, string(want[:len(p)]) == string(p))
		want = want[len(p):]
		return len(p), nil
	}))
	require.NoError(t, err)
	require.Empty(t, want)
}
