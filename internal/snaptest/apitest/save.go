package apitest

import (
	"io"

	clientv3 "go.etcd.io/etcd/client/v3"

	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/snaptest"
	"etcd.example/snapshot/internal/trailer"
)

// SaveForms runs a test on Save and on SaveTo. A SavedBy fetches a snapshot and
// returns what it has written.
func SaveForms(t *testing.T, run func(t *testing.T, fetch SavedBy)) {
	t.Run("Save", func(t *testing.T) { run(t, SaveToPath) })
	t.Run("SaveTo", func(t *testing.T) { run(t, SaveToWriter) })
}

type SavedBy func(ctx context.Context, t *testing.T, m Manager, cfg clientv3.Config) ([]byte, error)

// Before is the content of the file that a Save replaces.
const Before = "what stood there before"

// SaveToPath saves over an existing file and checks the promises of Save about the
// directory: on error it is unchanged, on nil it holds only the new file.
func SaveToPath(ctx context.Context, t *testing.T, m Manager, cfg clientv3.Config) ([]byte, error) {
	dir := t.TempDir()
	path := filepath.Join(dir, "snapshot.db")
	require.NoError(t, os.WriteFile(path, []byte(Before), 0o644))

	err := m.Save(ctx, cfg, path)

	require.Equal(t, []string{"snapshot.db"}, snaptest.TreeList(t, dir))
	got, rerr := os.ReadFile(path)
	require.NoError(t, rerr)
	if err != nil {
		require.Equal(t, Before, string(got))
		RequireSaveError(t, err, path)
		return nil, err
	}
	info, serr := os.Stat(path)
	require.NoError(t, serr)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	return got, nil
}

// SaveToWriter saves to memory and checks the promise of SaveTo about a writer that
// did not fail: it gets no trailer unless the snapshot is sound.
func SaveToWriter(ctx context.Context, t *testing.T, m Manager, cfg clientv3.Config) ([]byte, error) {
	var w bytes.Buffer
	saved, err := m.SaveTo(ctx, cfg, &w)
	if err != nil {
		require.Zero(t, saved)
		require.Zero(t, w.Len()%trailer.Sector, "w has a trailer, or part of one")
		RequireSaveError(t, err, "")
		return nil, err
	}
	require.EqualValues(t, w.Len(), saved.Size)
	require.Equal(t, sha256.Sum256(w.Bytes()[:w.Len()-trailer.Size]), saved.SHA256)
	require.Positive(t, saved.Took)
	return w.Bytes(), nil
}

// RequireSaveError requires that err is the Error of a Save to path.
func RequireSaveError(t *testing.T, err error, path string) {
	t.Helper()
	var e *snapshot.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "save", e.Op)
	require.Equal(t, path, e.Path)
	require.False(t, errors.As(e.Err, new(*snapshot.Error)), "wrapped twice: %v", err)
}

// RequireNoOther requires that the error of a Save matches no sentinel but want.
func RequireNoOther(t *testing.T, err, want error) {
	t.Helper()
	for _, other := range []error{
		snapshot.ErrEndpoints, snapshot.ErrUnreachable, snapshot.ErrStalled, snapshot.ErrTruncated, snapshot.ErrNoTrailer, snapshot.ErrChecksum,
		snapshot.ErrCorrupt, context.Canceled, context.DeadlineExceeded, io.EOF,
	} {
		if other != want {
			require.NotErrorIs(t, err, other)
		}
	}
}
