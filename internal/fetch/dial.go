package fetch

import (
	"context"
	"errors"
	"net"
	"time"
)

// dialDelay is how long to wait before dialing the next address of a host as well,
// as RFC 8305 recommends.
const dialDelay = 250 * time.Millisecond

// dialFirst connects to the first address that answers. It dials each one shortly
// after the one before, so a dead address does not use up the time of the others.
func dialFirst(ctx context.Context, dialer *net.Dialer, addresses []string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result)
	next := time.NewTimer(0)
	defer next.Stop()
	started, failed := 0, 0
	var errs []error
	for failed < len(addresses) {
		select {
		case <-next.C:
			if started < len(addresses) {
				address := addresses[started]
				started++
				go func() {
					conn, err := dialer.DialContext(ctx, "tcp", address)
					results <- result{conn, err}
				}()
				next.Reset(dialDelay)
			}
		case r := <-results:
			if r.err == nil {
				cancel()
				for range started - failed - 1 {
					if late := <-results; late.err == nil {
						_ = late.conn.Close() // nothing was written to it
					}
				}
				return r.conn, nil
			}
			failed++
			errs = append(errs, r.err)
			next.Reset(0)
		}
	}
	return nil, errors.Join(errs...)
}
