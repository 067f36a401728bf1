package milter

import (
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/authkey/authkey/policy"
)

// FuzzSession plays a whole stream of an MTA to a server, from before the
// negotiation on: whatever arrives, the process lives, the connection ends, and
// what the MTA hears are whole frames that delete fields or insert some.
func FuzzSession(f *testing.F) {
	connect := frame('C', "client.test\x004\x00\x19192.0.2.1\x00")
	whole := [][]byte{optNeg(), frame('D', "Cj\x00mx.test\x00"), connect,
		frame('D', "M{auth_authen}\x00\x00"), frame('M', "<alice@a.test>\x00"), frame('R', "<bob@rcpt.test>\x00"),
		frame('L', "X-Auth-Key\x00good\x00"), frame('L', "Authentication-Results\x00mx.test; x-authkey=pass\x00"),
		frame('D', "Ei\x00QID\x00"), frame('E', ""), frame('Q', "")}
	f.Add(slices.Concat(whole...))
	f.Add(slices.Concat(append(whole[:8:8], frame('A', ""), frame('M', "<>\x00"), frame('E', ""), frame('K', ""), connect, frame('E', ""))...))
	f.Add(slices.Concat(optNeg(), frame('E', ""), frame('L', "X-Auth-Key\x00good\x00"), frame('M', "<a@a.test>\x00"), frame('M', "<b@a.test>\x00")))
	for _, k := range killers {
		f.Add(slices.Concat(k.frames...))
	}
	for _, command := range "OCDHMRTLNBEAKUQz" {
		f.Add(slices.Concat(optNeg(), frame(byte(command), ""), frame(byte(command), "\x00"), frame(byte(command), "a\x00b\x00")))
	}
	// One server for all inputs, as in production.
	srv := New(slog.New(slog.DiscardHandler), &Engine{Settings: defaultSettings(),
		Limits: Limits{Connections: 100, IdleTimeout: patience, Recipients: 10}, Verifier: &fakeVerifier{}, Policy: policy.New(policy.Options{})})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	f.Cleanup(func() {
		srv.Shutdown(f.Context())
		<-served
	})
	f.Fuzz(func(t *testing.T, stream []byte) {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		answers := make(chan []byte, 1)
		go func() {
			b, _ := io.ReadAll(c)
			answers <- b
		}()
		_, _ = c.Write(stream) // refused in the middle, perhaps
		_ = c.(*net.TCPConn).CloseWrite()
		checkAnswers(t, <-answers)
	})
}

// checkAnswers reads the server's stream.
func checkAnswers(t *testing.T, stream []byte) {
	for len(stream) > 0 {
		if len(stream) < 5 {
			t.Fatalf("half a frame: %q", stream)
		}
		n, err := frameLength(stream)
		if err != nil || len(stream) < 4+n {
			t.Fatalf("a broken frame: %q, %v", stream, err)
		}
		command, data := stream[4], string(stream[5:4+n])
		stream = stream[4+n:]
		switch command {
		case 'm':
			if !strings.HasSuffix(data, "\x00\x00") {
				t.Errorf("a field is changed, not deleted: %q", data)
			}
		case 'a', 'c', 'd', 'i', 'O', 'p', 'q', 'r', 't', 'y':
		default:
			t.Errorf("unknown answer %q", command)
		}
	}
}
