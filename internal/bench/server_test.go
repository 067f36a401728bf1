package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/wire"
)

// startTestEcho runs the echo until the end of the test.
func startTestEcho(t *testing.T) *contender {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { done <- serve(ctx, ln, echoLines) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &contender{socket: ln.Addr().String()}
}

func newTestWorld(t *testing.T) *world {
	t.Helper()
	w, err := lab.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{w}
}

// startTestServer runs an Authentication Server of this process until the end of the
// test. The questions are about addresses of it, with their key.
func startTestServer(t *testing.T) (c *contender, questions []question) {
	t.Helper()
	w := newTestWorld(t)
	d, err := w.addDomain(benchDomain)
	if err != nil {
		t.Fatal(err)
	}
	for name := range names("user+", 10) {
		questions = append(questions, question{name + "@" + d.name, parseKey(t, d.key)})
	}
	return &contender{socket: d.socket}, questions
}

func parseKey(t *testing.T, text string) wire.Key {
	t.Helper()
	key, err := wire.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestPipeline(t *testing.T) {
	server, questions := startTestServer(t)
	echo := startTestEcho(t)
	wrong := []question{{questions[0].address, parseKey(t, "WRONG")}}
	for _, tt := range []struct {
		name   string
		from   *contender
		script []exchange
		fault  string
	}{
		{"server", server, validExchanges(questions), ""},
		{"echo", echo, echoExchanges(questions), ""},
		{"server that finds a key invalid", server, validExchanges(wrong), "answer 1 is not VERIFY_REPLY"},
		{"echo in place of a server", echo, validExchanges(questions), "answer 1 is not VERIFY_REPLY"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const most = 10_000
			answered, took, err := pipeline(t.Context(), tt.from.dial, tt.script, 0, most)
			if tt.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fault) {
					t.Errorf("error %v; want one with %q", err, tt.fault)
				}
				return
			}
			if err != nil || answered < most || answered > most+2*pipelines*halfPipeline || took <= 0 {
				t.Errorf("%d answered in %s, %v", answered, took, err)
			}
		})
	}
}

func TestPipelineEndsWithItsTime(t *testing.T) {
	_, questions := startTestServer(t)
	t.Parallel()
	const d = 2 * time.Second
	answered, took, err := pipeline(t.Context(), startTestEcho(t).dial, echoExchanges(questions), d, 0)
	if err != nil || answered == 0 || took < d {
		t.Errorf("%d answered in %s, %v", answered, took, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := pipeline(ctx, startTestEcho(t).dial, echoExchanges(questions), time.Hour, 0); err == nil {
		t.Error("no error although the context had ended")
	}
}

func TestVerdict(t *testing.T) {
	q := question{address: "bob@example.com"}
	for _, tt := range []struct {
		line string
		want wire.Verdict // empty: an error
	}{
		{"VERIFY_REPLY 1 bob@example.com VALIDKEY ttl=60\r\n", wire.ValidKey},
		{"VERIFY_REPLY 1 bob@example.com INVALIDKEY\n", wire.InvalidKey},
		{"VERIFY_REPLY 1 bob@example.com TEMPFAIL\r\n", wire.TempFail},
		{"VERIFY_REPLY 1 carol@example.com VALIDKEY\r\n", ""},
		{"ERROR 1 busy\r\n", ""},
		{"VERIFY 1 bob@example.com KEY\r\n", ""},
	} {
		got, err := q.verdict(tt.line)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%q: %q, %v; want %q", tt.line, got, err, tt.want)
		}
	}
}

func TestAsk(t *testing.T) {
	server, questions := startTestServer(t)
	conn, err := server.dialServer(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := awaitValid(t.Context(), conn, questions[0]); err != nil {
		t.Error(err)
	}
	wrong := question{questions[0].address, parseKey(t, "WRONG")}
	if verdict, err := wrong.ask(conn); verdict != wire.InvalidKey || err != nil {
		t.Errorf("%s, %v", verdict, err)
	}
	if err := awaitValid(t.Context(), conn, wrong); err == nil {
		t.Error("no error about a key that is not valid")
	}
}

func TestCertificate(t *testing.T) {
	w := newTestWorld(t)
	cert, err := w.makeCertificate()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert.file, cert.keyFile)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, ln, echoLines) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	conn, err := (&contender{socket: ln.Addr().String()}).dialServer(cert)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "hello\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "hello\r\n" || err != nil {
		t.Errorf("%q, %v", line, err)
	}
}

func TestAddVouched(t *testing.T) {
	w := newTestWorld(t)
	v, err := w.addVouched("example.com", names("bob", 3))
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile(v.list)
	if want := "bob0000000\nbob0000001\nbob0000002\n"; err != nil || string(list) != want {
		t.Errorf("list %q, %v", list, err)
	}
	questions, err := v.questions(names("bob", 2))
	if err != nil {
		t.Fatal(err)
	}
	if len(questions) != 2 || questions[1].address != "bob0000001@example.com" || questions[0].key.Equal(questions[1].key) {
		t.Errorf("%d questions, the last about %s", len(questions), questions[1].address)
	}
}

func TestAllowFiles(t *testing.T) {
	if err := allowFiles(1); err != nil {
		t.Error(err)
	}
	if err := allowFiles(1 << 62); err == nil {
		t.Error("no error about more descriptors than any kernel has")
	}
}
