package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/authkey/authkey/internal/wire"
)

// The limits of the configuration are the server's, and those of a new one on SIGHUP.
func TestServeLimits(t *testing.T) {
	t.Parallel()
	addr := freePort(t)
	p := newPlace(t, `listen: ["tcp:`+addr+`"]`+"\nlimits: {connections: 2, per_client: 3/1h, idle_timeout: 1h}\nlog: {format: json}")
	s := start(t, serveCommand(p.config))
	s.waitLog(`"msg":"domain is served"`, `"domain":"example.com"`)
	c := dial(t, addr, nil)
	var got []string
	for i := range 4 {
		r := c.ask(t, uint64(i+1), "bob@example.com", "x")
		got = append(got, string(r.Verdict)+string(r.Code))
	}
	if want := "INVALIDKEY INVALIDKEY INVALIDKEY ERRORbusy"; strings.Join(got, " ") != want {
		t.Errorf("%q, want %s", got, want)
	}
	second := dial(t, addr, nil)
	second.ask(t, 1, "bob@example.com", "x")
	if r := dial(t, addr, nil).reply(t); r.Verdict != wire.Error || r.Code != wire.CodeBusy || r.Seq != 0 {
		t.Errorf("a third connection hears %+v", r)
	}
	p.write(t, `listen: ["tcp:`+addr+`"]`+"\nlimits: {connections: 4, per_client: 1000/1s, idle_timeout: 1h}\nlog: {format: json}")
	s.signal(syscall.SIGHUP)
	third := dial(t, addr, nil)
	eventually(t, "the new limits do not hold", func() bool {
		_, err := fmt.Fprintf(third, "VERIFY 1 bob@example.com x\r\n")
		line, readErr := third.r.ReadString('\n')
		if err != nil || readErr != nil || !strings.Contains(line, "INVALIDKEY") {
			third = dial(t, addr, nil)
			return false
		}
		return true
	})
	eventually(t, "a client is busy for ever", func() bool { return c.ask(t, 9, "bob@example.com", "x").Verdict == wire.InvalidKey })
	p.write(t, `listen: ["tcp:`+addr+`"]`+"\nlimits: {idle_timeout: 10ms}\nlog: {format: json}")
	s.signal(syscall.SIGHUP)
	for _, idle := range []*client{c, second, third} {
		if _, err := idle.r.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("an idle connection: %v", err)
		}
	}
	if strings.Contains(s.log.String(), "take effect at the next start") {
		t.Error(s.log.String())
	}
}

// Where open files are fewer than the connections allowed, they are the limit, and
// whoever takes them all makes place for others all the same.
func TestServeWithFewDescriptors(t *testing.T) {
	t.Parallel()
	addr := freePort(t)
	p := newPlace(t, `listen: ["tcp:`+addr+`"]`)
	s := startServing(t, programCommand(nil, "sh", "-c", `ulimit -n 100 && exec "$@"`, "sh", os.Args[0], "serve", "--config", p.config))
	s.waitLog("level=WARN", "LimitNOFILE=", "files=100 connections=36")
	key := p.key(t, "bob@example.com")
	for range 150 {
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for range 3 {
		if got := verdict(t, addr, "bob@example.com", key); got != wire.ValidKey {
			t.Errorf("%s", got)
		}
	}
	s.waitLog("too many connections: closed one of the largest network")
	if strings.Contains(s.log.String(), "cannot accept connections") {
		t.Error(s.log.String())
	}
}
