package main

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startTestReader runs the bare reader until the end of the test.
func startTestReader(t *testing.T) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "socket")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() { done <- serve(ctx, ln, readFrames) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return socket
}

func TestLoad(t *testing.T) {
	socket := startTestReader(t)
	good := &message{sender: "user+" + numberMark + "@bench.test", key: "KEY"}
	with := func(e ending) *message { return &message{sender: good.sender, key: good.key, ending: e} }
	for _, tt := range []struct {
		name     string
		messages []*message // in turns
		answered int        // of 100
	}{
		{"complete", []*message{good}, 100},
		{"aborted", []*message{good, with(aborted)}, 50},
		{"dropped", []*message{good, with(dropped)}, 50},
		{"malformed", []*message{good, with(malformed), good, good}, 75},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const total = 100
			o, err := load{socket: socket, connections: 3, timed: true, next: func(n int) *message {
				if n == total {
					return nil
				}
				return tt.messages[n%len(tt.messages)]
			}}.run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if o.begun != total || o.answered() != tt.answered || o.answers['a'] != tt.answered {
				t.Errorf("%d begun, answers %v; want %d and %d", o.begun, o.answers, total, tt.answered)
			}
			if o.changes['m'] != tt.answered || o.changes['i'] != tt.answered || len(o.times) != tt.answered {
				t.Errorf("changes %v, %d times; want %d of each", o.changes, len(o.times), tt.answered)
			}
		})
	}
}

func TestLoadEndsWithItsTime(t *testing.T) {
	t.Parallel()
	l := load{socket: startTestReader(t), connections: 2, duration: 2 * time.Second}
	l.next = same(&message{sender: "user@bench.test"}, 0)
	o, err := l.run(t.Context())
	if err != nil || o.elapsed < l.duration || o.answered() != o.begun || o.begun == 0 {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestLoadRefuses runs the client against filters that break the protocol.
func TestLoadRefuses(t *testing.T) {
	agreed := string(readerAgreement())
	frame := func(code byte, data string) string { return string(appendFrame(nil, code, data)) }
	for _, tt := range []struct {
		name, says, want string
	}{
		{"no negotiation", frame('c', ""), "replies c to the negotiation"},
		{"reply to what needs none", agreed + frame('c', ""), "needs no reply"},
		{"frame too long", "\x7f\xff\xff\xffO", "frame of 2147483647 octets"},
		{"frame of length 0", "\x00\x00\x00\x00O", "frame of 0 octets"},
		{"hangs up", "", "closed a connection"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "socket")
			ln, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			done := make(chan error, 1)
			go func() { done <- say(ln, tt.says) }()
			_, err = load{socket: socket, connections: 1, next: same(&message{sender: "user@bench.test"}, 1)}.run(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v; want one with %q", err, tt.want)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// say accepts one connection, answers its first frame with text, and closes it
// once the client has done so, or at once where there is nothing to say.
func say(ln net.Listener, text string) error {
	c, err := ln.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head[:]))); err != nil || text == "" {
		return err
	}
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, c) // however the client ends it
	return nil
}

func TestConverse(t *testing.T) {
	conn, err := net.Dial("unix", startTestReader(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer, err := converse(conn, &message{sender: "user@bench.test", key: "KEY"})
	if err != nil || answer != 'a' {
		t.Errorf("%c, %v", answer, err)
	}
}
