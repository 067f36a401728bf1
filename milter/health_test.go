package milter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/policy"
)

func TestSelfCheck(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	r.mustSend(r.connect(), sent{from: "alice@a.test"})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.srv.SelfCheck(ctx); err != nil {
		t.Errorf("healthy: %v", err)
	}
	if got := r.srv.Status(); !strings.Contains(got, "1 messages answered") {
		t.Errorf("status %q", got)
	}
	r.waitFor("the connections", func() bool {
		if r.srv.Connections() >= testLimits.Connections {
			return true
		}
		r.dialRaw()
		return false
	})
	if err := r.srv.SelfCheck(ctx); err != nil {
		t.Errorf("at the limit of connections: %v", err)
	}
	if err := (&Server{}).SelfCheck(ctx); err == nil {
		t.Error("no socket is served, and nothing shows it")
	}
	if err := Negotiate(ctx, "unix", r.socket+".gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no socket: %v", err)
	}
	// Stuck: a goroutine holds what every connection needs, and never lets go.
	r.srv.mu.Lock()
	stuck, cancelStuck := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancelStuck()
	checked := make(chan error, 1)
	listeners := r.srv.listeners
	go func() { checked <- (&Server{listeners: listeners}).SelfCheck(stuck) }()
	if err := <-checked; err == nil {
		t.Error("stuck, and nothing shows it")
	}
	r.srv.mu.Unlock()
}

// TestNegotiate: what another program says is read, however soon it has gone.
func TestNegotiate(t *testing.T) {
	for _, tt := range []struct {
		name  string
		serve func(net.Conn)
		want  error
	}{
		{"another program", func(c net.Conn) { fmt.Fprint(c, "220 mx.test ESMTP\r\n"); c.Close() }, ErrNoMilter},
		{"another program that listens first", func(c net.Conn) {
			_, _ = c.Read(make([]byte, 100))
			fmt.Fprint(c, "220 mx.test ESMTP\r\n")
			c.Close()
		}, ErrNoMilter},
		{"a program of few words", func(c net.Conn) { fmt.Fprint(c, "hi"); c.Close() }, ErrNoMilter},
		{"closed at once", func(c net.Conn) { c.Close() }, ErrClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "m.sock")
			ln, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					tt.serve(c)
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			for range 200 {
				if err := Negotiate(ctx, "unix", path); !errors.Is(err, tt.want) {
					t.Fatalf("%v, want %v", err, tt.want)
				}
			}
		})
	}
}

// TestProbe: only a probe of our own, from this machine, is marked as one.
func TestProbe(t *testing.T) {
	for _, tc := range []struct {
		name, client, from, args string
		marked                   bool
	}{
		{"the doctor's", "127.0.0.1", "", "ENVID=" + ProbeEnvelopeID, true},
		{"the doctor's, in other words", "127.0.0.1", "", "SIZE=100 envid=" + ProbeEnvelopeID, true},
		{"a stranger's", "203.0.113.9", "", "ENVID=" + ProbeEnvelopeID, false},
		{"with a sender", "127.0.0.1", "alice@a.test", "ENVID=" + ProbeEnvelopeID, false},
		{"another id", "127.0.0.1", "", "ENVID=" + ProbeEnvelopeID + "2", false},
		{"no id", "127.0.0.1", "", "", false},
	} {
		settings := defaultSettings()
		settings.Submission = Submission{}
		r := newRig(t, settings, policy.Options{})
		s := r.connectAs(tc.client, gomilter.NewMacroBag())
		if _, err := s.Mail(tc.from, tc.args); err != nil {
			t.Fatal(err)
		}
		if err := s.Abort(nil); err != nil {
			t.Fatal(err)
		}
		r.waitFor("the line", func() bool { return strings.Contains(r.log.String(), "action=aborted") })
		if got := strings.Contains(r.log.String(), "probe=doctor"); got != tc.marked {
			t.Errorf("%s: marked %v\n%s", tc.name, got, r.log)
		}
	}
}
