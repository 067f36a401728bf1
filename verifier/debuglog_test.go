package verifier

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/wire"
)

// TestLogRepeatsNoServer: an AS knows the key it was asked about, and nothing that it
// can choose, a code, a text or the names in its certificate, gets into the log.
func TestLogRepeatsNoServer(t *testing.T) {
	const key = "verysecretkeyofsomebody26x"
	ca := newAuthority(t)
	say := func(format string) func(*session) {
		return once(func(s *session, req wire.Request) { s.say(format+"\r\n", req.Seq) })
	}
	tests := []struct {
		name   string
		tls    *tls.Config
		script func(*session)
	}{
		{"code", nil, say("ERROR %d " + key)},
		{"text", nil, say("ERROR %d busy " + key)},
		{"code, no seq", nil, once(func(s *session, _ wire.Request) { s.say("ERROR 0 %s\r\n", key) })},
		{"syntax", nil, say("ERROR %d syntax " + key)},
		{"verdict", nil, say("VERIFY_REPLY %d bob@a.test " + key)},
		{"address", nil, say("VERIFY_REPLY %d " + key + "@a.test VALIDKEY")},
		{"named value", nil, say("VERIFY_REPLY %d bob@a.test VALIDKEY " + key + "=" + key + " " + key)},
		{"no protocol", nil, say(key + " %d")},
		{"certificate", ca.config(t, key, time.Now().Add(time.Hour)), hold},
		{"certificate of nobody", newAuthority(t).config(t, key, time.Now().Add(time.Hour)), hold},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			as := startAS(t, tt.tls, tt.script)
			tags := ""
			if tt.tls != nil {
				tags = "; tls=yes"
			}
			ns := startDNS(t, "a.test. 300 IN TXT "+as.record(tags))
			log := new(lockedBuffer)
			o := options(ns.Addr())
			o.Roots = ca.pool()
			o.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			v := startVerifier(t, o)
			v.Verify(t.Context(), query(t, "bob@a.test", key))
			text := log.String()
			if !strings.Contains(text, "no verdict") {
				t.Fatalf("nothing was logged: %s", text)
			}
			for i := range len(key) - 6 {
				if strings.Contains(text, key[i:i+6]) {
					t.Fatalf("the log has a part of the key: %s", text)
				}
			}
		})
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
