package snapshot_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/snaptest/apitest"
	"etcd.example/snapshot/internal/trailer"
)

func TestSaveWhole(t *testing.T) {
	for name, tc := range map[string]struct{ size, chunk int }{
		"one sector":             {512, 32 << 10},
		"one message":            {20 << 10, 32 << 10},
		"whole blocks":           {4 << 20, 32 << 10},
		"a block and a sector":   {1<<20 + 512, 32 << 10},
		"a sector short of one":  {1<<20 - 512, 32 << 10},
		"odd messages":           {3<<20 + 4096, 7919},
		"a giant message":        {9<<20 + 4096, 64 << 20},
		"more blocks than exist": {12 << 20, 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			db := snaptest.Opaque(tc.size)
			apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
				snaptest.NoLeaks(t)
				s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
					c.Chunk = tc.chunk
					return c.SendSnapshot(db)
				})
				got, err := fetch(t.Context(), t, snapshot.New(), s.ClientConfig())
				require.NoError(t, err)
				require.True(t, bytes.Equal(snaptest.WithTrailer(db), got), "not what was sent")
			})
		})
	}
}

// A message that no server sends is not held in memory.
func TestSaveRefusesAColossalMessage(t *testing.T) {
	db := make([]byte, 65<<20)
	apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
		s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.Send(db, 0) })
		_, err := fetch(t.Context(), t, snapshot.New(), s.ClientConfig())
		require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
	})
}

// A message that says nothing is no announcement, wherever it comes.
func TestSaveSkipsEmptyMessages(t *testing.T) {
	db := snaptest.Opaque(8192)
	apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
		s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
			return errors.Join(c.Send(nil, 0), c.SendPart(db[:4096], len(db), 0), c.Send(nil, 4096),
				c.SendPart(db[4096:], 4096, 0), c.Send(nil, 0), c.Send(snaptest.WithTrailer(db)[8192:], 0), c.Send(nil, 0))
		})
		got, err := fetch(t.Context(), t, snapshot.New(), s.ClientConfig())
		require.NoError(t, err)
		require.Equal(t, snaptest.WithTrailer(db), got)
	})
}

func TestSaveToSaysVersion(t *testing.T) {
	for _, version := range []string{"", "3.6.0"} {
		s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
			c.Version = version
			return c.SendSnapshot(snaptest.Opaque(4096))
		})
		saved, err := snapshot.New().SaveTo(t.Context(), s.ClientConfig(), io.Discard)
		require.NoError(t, err)
		require.Equal(t, version, saved.Version)
	}
}

func TestSaveWantsOneEndpoint(t *testing.T) {
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(snaptest.Opaque(4096)) })
	for name, endpoints := range map[string][]string{
		"none":  nil,
		"empty": {""},
		"two":   {s.Endpoint(), s.Endpoint()},
	} {
		t.Run(name, func(t *testing.T) {
			apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
				_, err := fetch(t.Context(), t, snapshot.New(), clientv3.Config{Endpoints: endpoints})
				require.ErrorIs(t, err, snapshot.ErrEndpoints)
			})
		})
	}
	require.Empty(t, s.Tokens(), "dialled")
}

func TestSaveBadPath(t *testing.T) {
	snaptest.NoLeaks(t)
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(snaptest.Opaque(4096)) })
	dir := t.TempDir()
	for name, path := range map[string]string{
		"no directory": filepath.Join(dir, "none", "snapshot.db"),
		"a directory":  dir,
		"empty":        "",
	} {
		t.Run(name, func(t *testing.T) {
			err := snapshot.New().Save(t.Context(), s.ClientConfig(), path)
			require.Error(t, err)
			apitest.RequireSaveError(t, err, path)
		})
	}
	require.Empty(t, s.Tokens(), "dialled for a path that cannot be written")
	require.Empty(t, snaptest.TreeList(t, dir))
}

func TestSaveProgress(t *testing.T) {
	const total = 5<<20 + 4096 + trailer.Size
	db := snaptest.Opaque(total - trailer.Size)
	apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
		s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(db) })
		var reports []snapshot.Progress
		m := snapshot.New(snapshot.WithProgress(func(p snapshot.Progress) { reports = append(reports, p) }))
		_, err := fetch(t.Context(), t, m, s.ClientConfig())
		require.NoError(t, err)

		require.Greater(t, len(reports), 3)
		done := int64(-1)
		for _, p := range reports {
			require.Equal(t, "save", p.Op)
			require.Equal(t, snapshot.PhaseDownload, p.Phase)
			require.EqualValues(t, total, p.Total)
			require.Greater(t, p.Done, done)
			done = p.Done
		}
		require.EqualValues(t, total, done)
	})
}

func TestSaveProgressOfBadSnapshotNeverEnds(t *testing.T) {
	db := snaptest.Opaque(2<<20 + 4096)
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
		if err := c.SendDB(db); err != nil {
			return err
		}
		return c.Send(make([]byte, trailer.Size), 0)
	})
	var last snapshot.Progress
	m := snapshot.New(snapshot.WithProgress(func(p snapshot.Progress) { last = p }))
	_, err := m.SaveTo(t.Context(), s.ClientConfig(), io.Discard)
	require.ErrorIs(t, err, snapshot.ErrChecksum)
	require.Positive(t, last.Done)
	require.Less(t, last.Done, last.Total)
}

func TestSaveConcurrentlyToOnePath(t *testing.T) {
	snaptest.NoLeaks(t)
	const calls = 6
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
		return c.SendSnapshot(snaptest.Opaque(2<<20 + c.Number*512))
	})
	dir := t.TempDir()
	path := filepath.Join(dir, "snapshot.db")
	m := snapshot.New()
	var wg sync.WaitGroup
	errs := make([]error, calls)
	for i := range calls {
		wg.Go(func() { errs[i] = m.Save(t.Context(), s.ClientConfig(), path) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Equal(t, []string{"snapshot.db"}, snaptest.TreeList(t, dir))
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(snaptest.WithTrailer(got[:len(got)-trailer.Size]), got), "a mixture")
}

func TestSaveKeepsConfig(t *testing.T) {
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(snaptest.Opaque(4096)) })
	apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
		cfg := s.ClientConfig()
		cfg.DialOptions = append(make([]grpc.DialOption, 0, 16), grpc.WithUserAgent("backup"))
		options := cfg.DialOptions[0]
		_, err := fetch(t.Context(), t, snapshot.New(), cfg)
		require.NoError(t, err)

		require.Equal(t, []string{s.Endpoint()}, cfg.Endpoints)
		require.Same(t, options, cfg.DialOptions[0])
		for i, opt := range cfg.DialOptions[1:16] {
			require.Nil(t, opt, "DialOptions[%d] beyond its length", i+1)
		}
	})
}

func TestSaveWindows(t *testing.T) {
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(snaptest.Opaque(4096)) })
	cfg := s.ClientConfig()

	_, err := snapshot.New().SaveTo(t.Context(), cfg, io.Discard)
	require.NoError(t, err)
	stream, conn := s.Windows(t)
	require.Equal(t, 16<<20, stream)
	require.Equal(t, 16<<20, conn)

	cfg.DialOptions = []grpc.DialOption{grpc.WithInitialWindowSize(1 << 17), grpc.WithInitialConnWindowSize(1 << 18)}
	_, err = snapshot.New().SaveTo(t.Context(), cfg, io.Discard)
	require.NoError(t, err)
	stream, conn = s.Windows(t)
	require.Equal(t, 1<<17, stream)
	require.Equal(t, 1<<18, conn)
}

func TestSaveLogs(t *testing.T) {
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
		if c.Number%2 == 1 {
			return status.Error(codes.Unavailable, "not now") // the client has something to say, too
		}
		return c.SendSnapshot(snaptest.Opaque(4096))
	})
	managerCore, ofManager := observer.New(zap.DebugLevel)
	configCore, ofConfig := observer.New(zap.DebugLevel)
	m := snapshot.New(snapshot.WithLogger(zap.New(managerCore)))
	apitest.SaveForms(t, func(t *testing.T, fetch apitest.SavedBy) {
		for _, lg := range []*zap.Logger{nil, zap.New(configCore)} {
			cfg := s.ClientConfig()
			cfg.Logger = lg
			_, err := fetch(t.Context(), t, m, cfg)
			require.NoError(t, err)
			used, unused := ofManager, ofConfig
			if lg != nil {
				used, unused = ofConfig, ofManager
			}
			require.NotZero(t, used.FilterMessage("fetching snapshot").Len())
			require.NotZero(t, used.FilterMessage("retrying RecvMsg").Len())
			require.Zero(t, unused.Len())
			used.TakeAll()
		}
	})
}

// With an interval, etcd's client would learn of other members and go on there.
func TestSaveStaysWithItsMember(t *testing.T) {
	other := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error { return c.SendSnapshot(snaptest.Opaque(8192)) })
	s := snaptest.Serve(t, func(c *snaptest.SnapshotCall) error {
		if c.Number < 20 {
			return status.Error(codes.Unavailable, "not now")
		}
		return c.SendSnapshot(snaptest.Opaque(4096))
	}, other.Endpoint())
	cfg := s.ClientConfig()
	cfg.AutoSyncInterval = time.Millisecond
	saved, err := snapshot.New().SaveTo(t.Context(), cfg, io.Discard)
	require.NoError(t, err)
	require.EqualValues(t, 4096+trailer.Size, saved.Size)
	require.Empty(t, other.Tokens())
}
