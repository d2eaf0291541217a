package interop_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"etcd.example/snapshot"
	"etcd.example/snapshot/internal/interop"
	"etcd.example/snapshot/internal/interop/etcd"
)

// TestAlarms records what an alarm in the snapshot does after a restore. The alarm
// names a member that no longer exists.
func TestAlarms(t *testing.T) {
	dropping := asRoot
	dropping.edit = func(cfg *snapshot.RestoreConfig) { cfg.DropAlarms = true }

	eachRelease(t, func(t *testing.T, r *etcd.Release) {
		o := originOf(t, r)

		t.Run("NOSPACE", func(t *testing.T) {
			cli := dial(t, asRoot.boot(t, r, o.alarmed, 1)[0])
			require.Equal(t, []alarm{{o.memberID, pb.AlarmType_NOSPACE}}, alarms(t, cli))
			require.NotEqual(t, o.memberID, identity(t, cli).Members[0].ID)
			_, err := cli.Put(soon(t), "app/hot", "refused")
			require.ErrorIs(t, err, rpctypes.ErrNoSpace)
			_, err = cli.Get(soon(t), "app/hot")
			require.NoError(t, err)
			results.note(r, factNoSpace,
				"stays, under the id of the vanished member; puts are refused, although there is space")

			_, err = cli.AlarmDisarm(soon(t), &clientv3.AlarmMember{})
			require.NoError(t, err)
			require.Empty(t, alarms(t, cli))
			put(t, cli, "app/hot", "after")
			results.note(r, factDisarm, "disarms the vanished member's alarm")
		})

		t.Run("NOSPACE dropped", func(t *testing.T) {
			for _, m := range dropping.boot(t, r, o.alarmed, 3) {
				cli := dial(t, m)
				require.Empty(t, alarms(t, cli))
				put(t, cli, "app/hot", "after")
			}
		})

		t.Run("NOSPACE dropped in vain", func(t *testing.T) {
			c := dropping
			c.flags = []string{"--quota-backend-bytes", fmt.Sprint(quota)}
			cli := dial(t, c.boot(t, r, o.alarmed, 1)[0])
			require.Empty(t, alarms(t, cli))
			_, err := cli.Put(soon(t), "fill/more", strings.Repeat("x", 512<<10))
			require.ErrorIs(t, err, rpctypes.ErrNoSpace)
			results.note(r, factStill, "raised again by the first put that is over it")
		})

		corrupt := t.TempDir() + "/corrupt.db"
		t.Run("CORRUPT raised", func(t *testing.T) {
			m := asRoot.boot(t, r, o.plain, 1)[0]
			cli := dial(t, m)
			require.NoError(t, interop.RaiseAlarm(soon(t), cli, pb.AlarmType_CORRUPT))
			require.NoError(t, lib.Save(soon(t), m.ClientConfig(), corrupt))
			_, err := lib.Verify(soon(t), corrupt)
			require.NoError(t, err)
		})

		t.Run("CORRUPT", func(t *testing.T) {
			cli := dial(t, asRoot.boot(t, r, corrupt, 1)[0])
			require.Len(t, alarms(t, cli), 1)
			_, err := cli.Put(soon(t), "app/hot", "refused")
			require.ErrorIs(t, err, rpctypes.ErrCorrupt)
			_, err = cli.Get(soon(t), "app/hot")
			require.NoError(t, err)
			results.note(r, factCorrupt,
				"stays, under the id of the vanished member; puts are refused, reads are not")
		})

		t.Run("CORRUPT dropped", func(t *testing.T) {
			cli := dial(t, dropping.boot(t, r, corrupt, 1)[0])
			require.Empty(t, alarms(t, cli))
			put(t, cli, "app/hot", "after")
			results.note(r, factDropped, "gone; puts succeed")
		})
	})
}

type alarm struct {
	member uint64
	kind   pb.AlarmType
}

func alarms(t *testing.T, cli *clientv3.Client) []alarm {
	t.Helper()
	resp, err := cli.AlarmList(soon(t))
	require.NoError(t, err)
	var all []alarm
	for _, a := range resp.Alarms {
		all = append(all, alarm{a.MemberID, a.Alarm})
	}
	return all
}
