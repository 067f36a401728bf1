package milter

import (
	"context"
	"log/slog"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A fullListener is one of a process without descriptors.
type fullListener struct{ asked []time.Time }

func (l *fullListener) Accept() (net.Conn, error) {
	l.asked = append(l.asked, time.Now())
	return nil, syscall.EMFILE
}

func (*fullListener) Close() error   { return nil }
func (*fullListener) Addr() net.Addr { return &net.UnixAddr{Name: "m.sock", Net: "unix"} }

// TestAcceptTriesAgain: an error of Accept ends no socket, is not repeated without a pause,
// and does not hold up a shutdown.
func TestAcceptTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := New(slog.New(slog.DiscardHandler), testEngine())
		ln := &fullListener{}
		served := make(chan error)
		go func() { served <- srv.Serve(ln) }()
		time.Sleep(10 * time.Second)
		before := time.Now()
		srv.Shutdown(context.Background())
		if err := <-served; err != nil || time.Since(before) >= acceptBackoffMin {
			t.Errorf("Serve: %v, %v after Shutdown", err, time.Since(before))
		}
		want := acceptBackoffMin
		for i, at := range ln.asked[1:] {
			if pause := at.Sub(ln.asked[i]); pause != want {
				t.Errorf("pause %d is %v, want %v", i, pause, want)
			}
			want = min(2*want, acceptBackoffMax)
		}
		if n := len(ln.asked); n < 10 {
			t.Errorf("asked %d times in 10 s", n)
		}
	})
}
