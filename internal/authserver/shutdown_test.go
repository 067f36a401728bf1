package authserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/authkey/authkey/internal/keyring"
)

// Shutdown answers what has arrived, and what arrives in the next moment.
func TestShutdownAnswersWhatHasArrived(t *testing.T) {
	d := testDomain(t, "example.com", "bob")
	bob := keyOf(t, d, "bob@example.com", 0)
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("tls ", secure), func(t *testing.T) {
			// In a bubble that moment is over when nobody has anything to do.
			synctest.Test(t, func(t *testing.T) {
				server, client := selfSigned(t)
				if !secure {
					server = nil
				}
				s := New(Options{Domains: []*keyring.Domain{d}, Limits: testLimits(), Now: clock})
				connect := listenInBubble(t, s, server)
				come := func() *peer {
					nc := connect()
					if secure {
						nc = tls.Client(nc, client)
					}
					return newPeer(t, nc)
				}
				p, idle := come(), come()
				for _, q := range []*peer{p, idle} {
					q.send("VERIFY 1 bob@example.com " + bob + "\r\n")
					q.line()
				}
				done := make(chan error, 1)
				go func() { done <- s.Shutdown(t.Context()) }()
				<-s.stop // has begun
				sent := make(chan error, 1)
				go func() {
					_, err := io.WriteString(p, strings.Repeat("VERIFY 2 bob@example.com "+bob+"\r\n", 500)+"VERIFY 3 bob@")
					sent <- err
				}()
				for i := range 500 {
					if got := p.line(); got != "VERIFY_REPLY 2 bob@example.com VALIDKEY ttl=3600" {
						t.Fatalf("%d: %q", i, got)
					}
				}
				if err := <-sent; err != nil {
					t.Error(err)
				}
				p.wantEnd()
				idle.wantEnd()
				p.Close()
				idle.Close()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// After Shutdown nobody listens, now and later.
func TestShutdownClosesListeners(t *testing.T) {
	s := New(Options{Limits: testLimits()})
	address := listen(t, s, nil)
	p := dial(t, address, nil)
	p.send("x\n")
	p.line()
	p.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("somebody still listens")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Errorf("Serve after Shutdown: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is open: %v", err)
	}
}

// A newcomer at the limit takes nobody's place when the end has begun: those who are
// there are still answered.
func TestShutdownMakesNoPlace(t *testing.T) {
	d := testDomain(t, "example.com", "bob")
	synctest.Test(t, func(t *testing.T) { shutdownMakesNoPlace(t, d) })
}

func shutdownMakesNoPlace(t *testing.T, d *keyring.Domain) {
	limits := testLimits()
	limits.Connections = 3
	s := New(Options{Domains: []*keyring.Domain{d}, Limits: limits, Now: clock})
	connect := listenInBubble(t, s, nil)
	there := make([]*peer, limits.Connections)
	for i := range there {
		there[i] = newPeer(t, connect())
	}
	synctest.Wait()
	if n := s.Stats().Open; n != len(there) {
		t.Fatalf("%d connections", n)
	}
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	<-s.stop
	ours, theirs := net.Pipe() // has come before the listener is closed
	s.start(ours)
	if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the newcomer: %v", err)
	}
	for _, p := range there {
		p.send("VERIFY 1 bob@example.com x\n")
		if got := p.line(); got != "VERIFY_REPLY 1 bob@example.com INVALIDKEY" {
			t.Errorf("%q", got)
		}
		p.Close()
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := s.Stats(); got.Evicted != 0 || got.Refused != 0 || got.Open != 0 {
		t.Errorf("%+v", got)
	}
}

// When its context ends, Shutdown waits for nobody.
func TestShutdownCuts(t *testing.T) {
	s := New(Options{Limits: testLimits()})
	address := listen(t, s, nil)
	p := dial(t, address, nil)
	p.send("x\n")
	p.line()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if got := s.Stats().Open; got != 0 {
		t.Errorf("%d connections", got)
	}
}
