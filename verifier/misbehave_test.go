package verifier

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/wire"
)

// once makes a script of what to do with the first request; then it waits for the
// client to leave.
func once(do func(*session, wire.Request)) func(*session) {
	return func(s *session) {
		if req, ok := s.next(); ok {
			do(s, req)
			hold(s)
		}
	}
}

// TestMisbehavingServer: each kind of wrong has its result, within the deadline.
func TestMisbehavingServer(t *testing.T) {
	say := func(format string) func(*session) {
		return once(func(s *session, req wire.Request) { s.say(format, req.Seq, req.Address) })
	}
	tests := []struct {
		name   string
		script func(*session)
		status Status
		reason Reason
	}{
		{"silent", hold, TempError, ReasonASTimeout},
		{"never reads", func(s *session) { <-s.done }, TempError, ReasonASTimeout},
		{"trickle", once(func(s *session, req wire.Request) {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for _, c := range []byte(strings.Repeat("VERIFY_REPLY ", 100)) {
				if _, err := s.Write([]byte{c}); err != nil {
					return
				}
				select {
				case <-tick.C:
				case <-s.done:
					return
				}
			}
		}), TempError, ReasonASTimeout},
		{"half a line, then close", func(s *session) {
			req, _ := s.next()
			s.say("VERIFY_REPLY %d", req.Seq)
		}, TempError, ReasonASViolation},
		{"garbage", say("HTTP/1.1 400 Bad Request %d %s\r\n"), TempError, ReasonASViolation},
		{"binary", once(func(s *session, _ wire.Request) { s.Write([]byte("\x16\x03\x01\x00\n")) }), TempError, ReasonASViolation},
		{"endless line", once(func(s *session, _ wire.Request) {
			for {
				if _, err := s.Write([]byte(strings.Repeat("A", 1000))); err != nil {
					return
				}
			}
		}), TempError, ReasonASViolation},
		{"line one octet too long", once(func(s *session, req wire.Request) {
			line := fmt.Sprintf("VERIFY_REPLY %d %s VALIDKEY mac=", req.Seq, req.Address)
			s.say("%s\r\n", line+strings.Repeat("x", wire.MaxLine-len("\r\n")-len(line)+1))
		}), TempError, ReasonASViolation},
		{"line of greatest length", once(func(s *session, req wire.Request) {
			line := fmt.Sprintf("VERIFY_REPLY %d %s VALIDKEY mac=", req.Seq, req.Address)
			s.say("%s\r\n", line+strings.Repeat("x", wire.MaxLine-len("\r\n")-len(line)))
		}), Pass, ""},
		{"blank line", say("\r\n%.0d%.0s"), TempError, ReasonASViolation},
		{"greeting", func(s *session) { s.say("220 welcome\r\n"); hold(s) }, TempError, ReasonASViolation},
		{"another address", once(func(s *session, req wire.Request) {
			s.say("VERIFY_REPLY %d other@a.test VALIDKEY\r\n", req.Seq)
		}), TempError, ReasonASViolation},
		{"address in other case", once(func(s *session, req wire.Request) {
			s.say("VERIFY_REPLY %d %s VALIDKEY\r\n", req.Seq, strings.ToUpper(req.Address))
		}), TempError, ReasonASViolation},
		{"a number never sent", once(func(s *session, req wire.Request) {
			s.say("VERIFY_REPLY %d %s VALIDKEY\r\n", req.Seq+1, req.Address)
		}), TempError, ReasonASViolation},
		{"a number before the first", once(func(s *session, req wire.Request) {
			s.say("VERIFY_REPLY %d %s VALIDKEY\r\n", max(1, req.Seq-1), req.Address)
		}), TempError, ReasonASViolation},
		{"number with leading zero", say("VERIFY_REPLY 0%d %s VALIDKEY\r\n"), TempError, ReasonASViolation},
		{"lower case", say("verify_reply %d %s validkey\r\n"), TempError, ReasonASViolation},
		{"unknown verdict", say("VERIFY_REPLY %d %s MAYBE\r\n"), TempError, ReasonASViolation},
		{"bad named value", say("VERIFY_REPLY %d %s VALIDKEY ttl\r\n"), TempError, ReasonASViolation},
		{"ERROR 0", say("ERROR 0 busy%.0d%.0s\r\n"), TempError, ReasonASViolation},
		{"TEMPFAIL", say("VERIFY_REPLY %d %s TEMPFAIL\r\n"), TempError, ReasonASTempFail},
		{"ERROR busy", say("ERROR %d busy later%.0s\r\n"), TempError, ReasonASBusy},
		{"ERROR syntax", say("ERROR %d syntax%.0s\r\n"), PermError, ReasonASSyntax},
		{"ERROR toolong", say("ERROR %d toolong%.0s\r\n"), PermError, ReasonASSyntax},
		{"ERROR notserved", say("ERROR %d notserved%.0s\r\n"), PermError, ReasonASNotServed},
		{"ERROR of another version", say("ERROR %d teapot%.0s\r\n"), TempError, ReasonASTempFail},
		{"close after accept", func(*session) {}, TempError, ReasonASRefused},
		{"close after the request", func(s *session) { s.next() }, TempError, ReasonASRefused},
		{"unknown named values", say("VERIFY_REPLY %d %s VALIDKEY mac=x rcpt=\r\n"), Pass, ""},
		{"bare LF", say("VERIFY_REPLY %d %s INVALIDKEY\n"), Fail, ReasonInvalidKey},
		{"reply in pieces", once(func(s *session, req wire.Request) {
			for _, piece := range []string{"VERIFY_", "REPLY %d ", req.Address, " VALID", "KEY\r", "\n"} {
				if strings.Contains(piece, "%d") {
					s.say(piece, req.Seq)
				} else {
					s.say("%s", piece)
				}
			}
		}), Pass, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			as := startAS(t, nil, tt.script)
			ns := startDNS(t, "a.test. 300 IN TXT "+as.record(""))
			o := options(ns.Addr())
			if tt.reason == ReasonASTimeout {
				o.ReplyTimeout = soon
			}
			began := time.Now()
			r := check(t, startVerifier(t, o), query(t, "u@a.test", "good"), tt.status, tt.reason)
			if took := time.Since(began); took >= patience {
				t.Errorf("took %v", took)
			}
			if r.Server == "" {
				t.Error("the result names no server")
			}
		})
	}
}

// TestTLS: the certificate must be the host's, and clear text is never the way out.
func TestTLS(t *testing.T) {
	ca := newAuthority(t)
	later := time.Now().Add(time.Hour)
	old := ca.config(t, "as.test", later)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	asksForCert := ca.config(t, "as.test", later)
	asksForCert.ClientAuth = tls.RequireAnyClientCert
	v12 := ca.config(t, "as.test", later)
	v12.MaxVersion = tls.VersionTLS12
	tests := []struct {
		name   string
		config *tls.Config
		script func(*session)
		host   string
		status Status
		reason Reason
	}{
		{"right name", ca.config(t, "as.test", later), honest, "as.test", Pass, ""},
		{"1.2 is enough", v12, honest, "as.test", Pass, ""},
		{"right address", ca.config(t, "127.0.0.1", later), honest, "127.0.0.1", Pass, ""},
		{"wrong name", ca.config(t, "other.test", later), honest, "as.test", TempError, ReasonASTLS},
		{"name for an address", ca.config(t, "as.test", later), honest, "127.0.0.1", TempError, ReasonASTLS},
		{"expired", ca.config(t, "as.test", time.Now().Add(-time.Minute)), honest, "as.test", TempError, ReasonASTLS},
		{"unknown authority", newAuthority(t).config(t, "as.test", later), honest, "as.test", TempError, ReasonASTLS},
		{"1.1 only", old, honest, "as.test", TempError, ReasonASTLS},
		{"wants a certificate of ours", asksForCert, honest, "as.test", TempError, ReasonASTLS},
		{"clear text", nil, afterHello("220 welcome"), "as.test", TempError, ReasonASTLS},
		{"clear text after the handshake", ca.config(t, "as.test", later), once(func(s *session, req wire.Request) {
			s.Conn = s.Conn.(*tls.Conn).NetConn()
			s.answer(req, wire.ValidKey)
		}), "as.test", TempError, ReasonASViolation},
		{"silent in the handshake", nil, func(s *session) { <-s.done }, "as.test", TempError, ReasonASTimeout},
		{"ends in the handshake", nil, func(*session) {}, "as.test", TempError, ReasonASTLS},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			as := startAS(t, tt.config, tt.script)
			ns := startDNS(t,
				"a.test. 300 IN TXT "+strings.Replace(as.record("; tls=yes"), "127.0.0.1", tt.host, 1),
				"as.test. 300 IN A 127.0.0.1")
			o := options(ns.Addr())
			o.Roots, o.RequireTLS = ca.pool(), true
			if tt.reason == ReasonASTimeout {
				o.ConnectTimeout = soon
			}
			check(t, startVerifier(t, o), query(t, "u@a.test", "good"), tt.status, tt.reason)
		})
	}
}

// afterHello answers the client's first octets with a clear-text line.
func afterHello(text string) func(*session) {
	return func(s *session) {
		s.Read(make([]byte, 1))
		s.say("%s\r\n", text)
		<-s.done
	}
}

// TestLateAndDuplicate: replies to questions no longer outstanding are dropped, and
// the connection goes on.
func TestLateAndDuplicate(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	as := startAS(t, nil, func(s *session) {
		first, _ := s.next()
		second, ok := s.next()
		if !ok {
			return
		}
		s.answer(second, wire.ValidKey)
		s.answer(second, wire.ValidKey)   // duplicate
		s.answer(second, wire.InvalidKey) // and one that contradicts
		<-release
		s.answer(first, wire.ValidKey) // late: its question gave up
		honest(s)
	})
	ns := startDNS(t, "a.test. 300 IN TXT "+as.record(""))
	o := options(ns.Addr())
	o.ReplyTimeout = 10 * time.Second
	v := startVerifier(t, o)
	gaveUp := make(chan Result)
	q := query(t, "first@a.test", "good")
	go func() { gaveUp <- v.Verify(t.Context(), q) }()
	eventually(t, "the first question is asked", func() bool { return as.conns.Load() == 1 && as.asked.Load() == 1 })
	check(t, v, query(t, "second@a.test", "good"), Pass, "")
	if r := <-gaveUp; r.Reason != ReasonASTimeout {
		t.Errorf("the first question: %s/%s", r.Status, r.Reason)
	}
	close(release)
	check(t, v, query(t, "third@a.test", "bad"), Fail, ReasonInvalidKey)
	if n := as.conns.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	eventually(t, "replies have come to two questions that wait for one, and three more", func() bool {
		conns := connections(v)
		if len(conns) != 1 {
			t.Fatalf("%d connections are open, want 1", len(conns))
		}
		conns[0].mu.Lock()
		defer conns[0].mu.Unlock()
		return conns[0].replies == 2+3
	})
}

// TestViolationMovesAll: when a server breaks the protocol, every question on the
// connection goes to the next server.
func TestViolationMovesAll(t *testing.T) {
	const n = 20
	bad := startAS(t, nil, func(s *session) {
		for range n {
			if _, ok := s.next(); !ok {
				return
			}
		}
		s.say("nonsense\r\n")
		hold(s)
	})
	good := startAS(t, nil, honest)
	ns := startDNS(t,
		"a.test. 300 IN TXT "+bad.record("; pri=1"), "a.test. 300 IN TXT "+good.record("; pri=2"))
	v := startVerifier(t, options(ns.Addr()))
	results := make(chan Result)
	for i := range n {
		q := query(t, strings.Repeat("u", i+1)+"@a.test", "good")
		go func() { results <- v.Verify(t.Context(), q) }()
	}
	for range n {
		if r := <-results; r.Status != Pass || !strings.HasSuffix(good.record(""), r.Server[len("127.0.0.1"):]+`"`) {
			t.Errorf("%s/%s by %s", r.Status, r.Reason, r.Server)
		}
	}
	if got := failures(v); got != 1 {
		t.Errorf("the violation counts as %d failures, want 1", got)
	}
}

// TestPooledRetry: a connection that the server ended between two questions costs
// nothing, one that ends in the midst of a reply does.
func TestPooledRetry(t *testing.T) {
	tests := []struct {
		name   string
		script func(*session)
		status Status
		reason Reason
		conns  int64
	}{
		{"closed on the second request", func(s *session) {
			req, ok := s.next()
			if !ok {
				return
			}
			s.answer(req, wire.ValidKey)
			s.next()
		}, Pass, "", 2},
		{"closed by the first byte of the reply", func(s *session) {
			req, ok := s.next()
			if !ok {
				return
			}
			s.answer(req, wire.ValidKey)
			if _, ok := s.next(); ok {
				s.say("V")
			}
		}, TempError, ReasonASViolation, 1},
		{"the fresh one is closed too", func(s *session) {
			req, ok := s.next()
			if s.n > 0 || !ok {
				return
			}
			s.answer(req, wire.ValidKey)
			s.next()
		}, TempError, ReasonASRefused, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			as := startAS(t, nil, tt.script)
			ns := startDNS(t, "a.test. 300 IN TXT "+as.record(""))
			v := startVerifier(t, options(ns.Addr()))
			check(t, v, query(t, "one@a.test", "good"), Pass, "")
			check(t, v, query(t, "two@a.test", "good"), tt.status, tt.reason)
			if n := as.conns.Load(); n != tt.conns {
				t.Errorf("%d connections, want %d", n, tt.conns)
			}
		})
	}
}
