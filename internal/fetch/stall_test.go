package fetch_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
)

// An announcement without bytes is no byte: what the server may be silent goes
// on from the connection. Two waits of which each is shorter are too long.
func TestSaveAnnouncementIsNoByte(t *testing.T) {
	db := snaptest.Opaque(8192)
	apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
		snaptest.NoLeaks(t)
		wait := func(c *snaptest.SnapshotCall) {
			select {
			case <-time.After(shortStall - shortStall/4):
			case <-c.Context().Done():
			}
		}
		s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
			wait(c)
			if err := c.Send(nil, int64(len(db))); err != nil {
				return err
			}
			wait(c)
			return c.SendSnapshot(db)
		})
		for _, report := range []func(snapshot.Progress){nil, func(snapshot.Progress) {}} {
			m := snapshot.New(snapshot.WithStallTimeout(shortStall), snapshot.WithProgress(report))
			_, err := fetch(t.Context(), t, m, s.ClientConfig())
			require.ErrorIs(t, err, snapshot.ErrStalled)
			apitest.RequireNoOther(t, err, snapshot.ErrStalled)
		}
	})
}
