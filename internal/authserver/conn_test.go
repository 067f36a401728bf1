package authserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/wire"
)

// A scriptedConn is a client whose questions are there from the beginning, cut
// into pieces of chunk octets.
type scriptedConn struct {
	remote string // host:port
	input  string
	chunk  int // 0: as much as is wanted

	output bytes.Buffer
	writes int
}

// run has s serve the connection to its end.
func (c *scriptedConn) run(s *Server) {
	s.wg.Add(1)
	(&conn{s: s, net: c, client: s.clients.enter(c.RemoteAddr())}).serve()
}

func (c *scriptedConn) Read(p []byte) (int, error) {
	if c.input == "" {
		return 0, io.EOF
	}
	if c.chunk > 0 && c.chunk < len(p) {
		p = p[:c.chunk]
	}
	n := copy(p, c.input)
	c.input = c.input[n:]
	return n, nil
}

func (c *scriptedConn) Write(p []byte) (int, error) {
	c.writes++
	return c.output.Write(p)
}

func (c *scriptedConn) RemoteAddr() net.Addr {
	if c.remote == "" {
		return &net.UnixAddr{}
	}
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.remote))
}

func (c *scriptedConn) Close() error                     { return nil }
func (c *scriptedConn) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (c *scriptedConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptedConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptedConn) SetWriteDeadline(time.Time) error { return nil }

// Whatever a client sends, in whatever pieces: every line gets one well-formed
// reply that names its number, no reply shows a key, nothing panics.
func FuzzConnection(f *testing.F) {
	d := testDomain(f, "example.com", "bob")
	bob := keyOf(f, d, "bob@example.com", 0)
	for _, input := range []string{
		"VERIFY 1 bob@example.com KEY\r\n",
		"VERIFY 1 bob@example.com KEY\nVERIFY 2 carol@example.com KEY x=y\r\nVERIFY 3 bob@example.org KEY\n",
		"VERIFY 1 bob@nolist.example KEY\r\nVERIFY 18446744073709551615 \"a%20b\"@example.com KEY\r\n",
		"VERIFY 0 bob@example.com KEY\r\n\r\n\n VERIFY\r\nVERIFY 1\r\nVERIFY 9 bob%zz@example.com x\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"VERIFY 5 " + strings.Repeat("a", 2100) + "\r\n",
		strings.Repeat("x\n", 30),
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
	} {
		f.Add(input, uint8(0))
		f.Add(input, uint8(3))
	}
	s := New(Options{Domains: []*keyring.Domain{d, testDomain(f, "nolist.example")}, Limits: testLimits(), Now: clock})
	f.Fuzz(func(t *testing.T, input string, chunk uint8) {
		input = strings.ReplaceAll(input, "KEY", bob)
		c := &scriptedConn{input: input, chunk: int(chunk)}
		c.run(s)
		if n := s.Stats().Panics; n != 0 {
			t.Fatalf("%d panics", n)
		}
		replies := strings.SplitAfter(c.output.String(), "\r\n")
		replies = replies[:len(replies)-1] // what is behind the last line's end
		if strings.Join(replies, "") != c.output.String() {
			t.Fatalf("%q does not end a line", c.output.String())
		}
		lines := strings.SplitAfter(input, "\n")
		if len(replies) > len(lines) {
			t.Fatalf("%d replies to %d lines", len(replies), len(lines))
		}
		for i, text := range replies {
			reply, err := wire.ParseReply(strings.TrimSuffix(text, "\r\n"))
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			line := strings.TrimSuffix(strings.TrimSuffix(lines[i], "\n"), "\r")
			req, err := wire.ParseRequest(line[:min(len(line), wire.MaxLine)])
			if reply.Seq != req.Seq || reply.Address != "" && (err != nil || reply.Address != req.Address) {
				t.Errorf("%q is no reply to %q", text, line)
			}
			if strings.Contains(text, bob) && !strings.Contains(req.Address, bob) {
				t.Errorf("%q shows a key", text)
			}
		}
	})
}

// The same input makes the same replies, in whatever pieces it comes.
func TestPieces(t *testing.T) {
	d := testDomain(t, "example.com", "bob")
	bob := keyOf(t, d, "bob@example.com", 0)
	var input strings.Builder
	for i := 1; i <= 200; i++ {
		input.WriteString("VERIFY " + strconv.Itoa(i) + " bob@example.com " + bob + strings.Repeat(" x=y", i) + "\r\n")
	}
	want := ""
	for _, chunk := range []int{0, 1, 2, 7, 1000, readSize} {
		s := New(Options{Domains: []*keyring.Domain{d}, Limits: testLimits(), Now: clock})
		c := &scriptedConn{input: input.String(), chunk: chunk}
		c.run(s)
		if want == "" {
			want = c.output.String()
			if got := s.Stats().Valid; got != 200 {
				t.Fatalf("%d answers", got)
			}
		}
		if got := c.output.String(); got != want {
			t.Errorf("pieces of %d: %d octets, want %d", chunk, len(got), len(want))
		}
	}
}

// BenchmarkServer asks over loopback, with up to 500 questions in flight on each
// of two connections; the client's work is counted too.
func BenchmarkServer(b *testing.B) {
	d := testDomain(b, "example.com", "bob")
	bob := keyOf(b, d, "bob@example.com", 0)
	serverTLS, clientTLS := selfSigned(b)
	for _, bm := range []struct {
		name           string
		server, client *tls.Config
	}{{"tcp", nil, nil}, {"tls", serverTLS, clientTLS}} {
		b.Run(bm.name, func(b *testing.B) {
			s := New(Options{Domains: []*keyring.Domain{d}, Limits: testLimits(), Now: clock})
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			address := l.Addr().String()
			if bm.server != nil {
				l = tls.NewListener(l, bm.server)
			}
			served := make(chan error, 1)
			go func() { served <- s.Serve(l) }()
			const batch, conns = 500, 2
			questions := bytes.Repeat([]byte("VERIFY 1234567890 bob@example.com "+bob+"\r\n"), batch)
			replies := len("VERIFY_REPLY 1234567890 bob@example.com VALIDKEY ttl=3600\r\n") * batch
			finished := make(chan error, conns)
			b.ReportAllocs()
			b.ResetTimer()
			for range conns {
				nc, err := net.Dial("tcp", address)
				if err != nil {
					b.Fatal(err)
				}
				if bm.client != nil {
					nc = tls.Client(nc, bm.client)
				}
				go func() {
					defer nc.Close()
					buf := make([]byte, replies)
					for done := 0; done < b.N/conns; done += batch {
						if _, err := nc.Write(questions); err != nil {
							finished <- err
							return
						}
						if _, err := io.ReadFull(nc, buf); err != nil {
							finished <- err
							return
						}
					}
					finished <- nil
				}()
			}
			for range conns {
				if err := <-finished; err != nil {
					b.Error(err)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(s.Stats().Valid)/b.Elapsed().Seconds(), "questions/s")
			if err := s.Shutdown(context.Background()); err != nil {
				b.Error(err)
			}
			if err := <-served; err != nil {
				b.Error(err)
			}
		})
	}
}
