package milter

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// aMessage is what Postfix sends of one message, which has a key and few other fields.
var aMessage = slices.Concat(
	frame('D', "M{mail_addr}\x00alice@a.test\x00"), frame('M', "<alice@a.test>\x00"),
	frame('D', "R{rcpt_addr}\x00bob@rcpt.test\x00"), frame('R', "<bob@rcpt.test>\x00"),
	frame('L', "Received\x00from client.test (client.test [192.0.2.1]) by mx.test\x00"),
	frame('L', "From\x00Alice <alice@a.test>\x00"), frame('L', "To\x00bob@rcpt.test\x00"),
	frame('L', "Subject\x00a message\x00"), frame('L', "Message-ID\x00<1@a.test>\x00"),
	frame('L', "DKIM-Signature\x00v=1; a=rsa-sha256; d=a.test; s=s; bh=x; b=y\x00"),
	frame('L', "X-Auth-Key\x00good\x00"),
	frame('D', "Ei\x00QID\x00"), frame('E', ""))

var aConnection = slices.Concat(
	frame('D', "Cj\x00mx.test\x00{daemon_name}\x00mx.test\x00"), frame('C', "client.test\x004\x00\x19192.0.2.1\x00"))

// benchServer serves an Engine whose verifier has every key in its cache.
func benchServer(b *testing.B, notifier Notifier) (socket string) {
	settings := defaultSettings()
	settings.From = FromReport
	srv := New(slog.New(slog.NewTextHandler(io.Discard, nil)), &Engine{Settings: settings, Limits: testLimits,
		Policy: policy.New(policy.Options{}), Notifier: notifier,
		Verifier: &fakeVerifier{cached: func(verifier.Query) (verifier.Result, bool) {
			return verifier.Result{Status: verifier.Pass, Cached: true}, true
		}}})
	socket = filepath.Join(b.TempDir(), "m.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		srv.Shutdown(ctx)
		if err := <-served; err != nil {
			b.Error(err)
		}
	})
	return socket
}

// benchConnect opens a connection, negotiates and says who the client is.
func benchConnect(b *testing.B, socket string) net.Conn {
	c, err := net.Dial("unix", socket)
	if err != nil {
		b.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * patience))
	if _, err := c.Write(optNeg()); err != nil {
		b.Fatal(err)
	}
	if command, _, err := readFrame(c); err != nil || command != 'O' {
		b.Fatal(command, err)
	}
	if _, err := c.Write(aConnection); err != nil {
		b.Fatal(err)
	}
	return c
}

// benchMessage passes a message, which is accepted.
func benchMessage(b *testing.B, c net.Conn, answer []byte) {
	if _, err := c.Write(aMessage); err != nil {
		b.Fatal(err)
	}
	n := 0
	for n < 5 || string(answer[n-5:n]) != "\x00\x00\x00\x01a" {
		more, err := c.Read(answer[n:])
		if err != nil {
			b.Fatal(err)
		}
		n += more
	}
}

// BenchmarkMessage is what a message costs whose key is in the cache, with and without
// a header to keep for notices.
func BenchmarkMessage(b *testing.B) {
	for name, notifier := range map[string]Notifier{"plain": nil, "notices": &fakeNotifier{}} {
		b.Run(name, func(b *testing.B) {
			c := benchConnect(b, benchServer(b, notifier))
			defer c.Close()
			answer := make([]byte, 4096)
			b.ReportAllocs()
			for b.Loop() {
				benchMessage(b, c, answer)
			}
		})
	}
}

// BenchmarkConnection is the same with a connection for each message.
func BenchmarkConnection(b *testing.B) {
	socket := benchServer(b, nil)
	answer := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		c := benchConnect(b, socket)
		benchMessage(b, c, answer)
		_ = c.Close()
	}
}
