package milter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/policy"
)

// frame builds a milter frame.
func frame(command byte, data string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(data)+1))
	return append(append(b, command), data...)
}

// optNeg is what Postfix says first.
func optNeg() []byte {
	b := binary.BigEndian.AppendUint32(nil, 6)
	b = binary.BigEndian.AppendUint32(b, 0x1FF)
	b = binary.BigEndian.AppendUint32(b, 0x1FFFFF)
	return frame('O', string(b))
}

// dialRaw opens a connection that has not negotiated.
func (r *rig) dialRaw() net.Conn {
	r.t.Helper()
	c, err := net.Dial("unix", r.socket)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// readFrame reads one frame of the server.
func readFrame(c net.Conn) (command byte, data []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return 0, nil, err
	}
	data = make([]byte, binary.BigEndian.Uint32(head[:])-1)
	_, err = io.ReadFull(c, data)
	return head[4], data, err
}

// TestFramesThatKillTheLibrary sends what makes go-milter by itself panic, which
// ends the process, or allocate what a stranger says.
func TestFramesThatKillTheLibrary(t *testing.T) {
	connect := frame('C', "client.test\x00"+"4\x00\x19192.0.2.1\x00")
	tests := []struct {
		name   string
		frames [][]byte
	}{
		{"negotiation too short", [][]byte{frame('O', "\x00\x00\x00\x06")}},
		{"negotiation twice", [][]byte{optNeg(), optNeg()}},
		{"a protocol too old", [][]byte{frame('O', "\x00\x00\x00\x01"+"\x00\x00\x01\xff"+"\x00\x00\x00\x00")}},
		{"something else first", [][]byte{connect}},
		{"empty connect", [][]byte{optNeg(), frame('C', "")}},
		{"half a port", [][]byte{optNeg(), frame('C', "host\x004\x00")}},
		{"address that is none", [][]byte{optNeg(), frame('C', "host\x004\x00\x19300.1.1.1\x00"), frame('Q', "")}}, // no reason to close
		{"MAIL without terminator", [][]byte{optNeg(), connect, frame('M', "<a@b.test>")}},
		{"empty MAIL", [][]byte{optNeg(), connect, frame('M', "")}},
		{"RCPT without terminator", [][]byte{optNeg(), connect, frame('M', "<a@b.test>\x00"), frame('R', "<b@b.test>")}},
		{"HEADER of three strings", [][]byte{optNeg(), connect, frame('M', "<a@b.test>\x00"), frame('L', "a\x00b\x00c\x00")}},
		{"HEADER of one string", [][]byte{optNeg(), connect, frame('M', "<a@b.test>\x00"), frame('L', "a\x00")}},
		{"empty HEADER", [][]byte{optNeg(), connect, frame('L', "")}},
		{"empty macro", [][]byte{optNeg(), frame('D', "")}},
		{"unknown command", [][]byte{optNeg(), frame('z', "")}},
		{"512 MiB claimed", [][]byte{optNeg(), {0x20, 0, 0, 0, 'L'}}},
		{"4 GiB claimed", [][]byte{{0xff, 0xff, 0xff, 0xff, 'O'}}},
	}
	r := newRig(t, defaultSettings(), policy.Options{})
	for _, tt := range append(tests, killers...) {
		t.Run(tt.name, func(t *testing.T) {
			c := r.dialRaw()
			for _, f := range tt.frames {
				if _, err := c.Write(f); err != nil {
					break // closed already, which is what is wanted
				}
			}
			rest, err := io.ReadAll(c)
			if err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
				t.Errorf("the connection stays open: %v", err)
			}
			if len(rest) > 0 && rest[4] != 'O' {
				t.Errorf("an answer other than to the negotiation: %q", rest)
			}
			next := r.connect()
			defer next.Close()
			got, err := send(next, sent{from: "alice@a.test", fields: []field{{"X-Auth-Key", "good"}}})
			if err != nil || got.action != gomilter.ActionAccept {
				t.Errorf("the next client hears %v, %v", got.action, err)
			}
		})
	}
}

// TestFrameClaimsCostNothing holds many connections that announce a big frame
// and send none of it.
func TestFrameClaimsCostNothing(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 15 {
		c := r.dialRaw()
		if _, err := c.Write(append(optNeg(), 0x00, 0x10, 0x00, 0x00, 'L')); err != nil { // 1 MiB
			t.Fatal(err)
		}
		if _, _, err := readFrame(c); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2<<20 {
		t.Errorf("15 announced MiB cost %d bytes before one of them arrived", grown)
	}
}

// TestNoMail: a message without MAIL FROM, of which nothing is known, does not pass.
func TestNoMail(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	c := r.dialRaw()
	for _, f := range [][]byte{optNeg(), frame('R', "<bob@rcpt.test>\x00"), frame('L', "X-Auth-Key\x00good\x00"), frame('E', "")} {
		if _, err := c.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	if command, _, err := readFrame(c); err != nil || command != 'O' {
		t.Fatalf("%q, %v", command, err)
	}
	if command, data, err := readFrame(c); err != nil || command != 'y' || string(data) != filterErrorText+"\x00" {
		t.Errorf("%q %q, %v; want %q", command, data, err, filterErrorText)
	}
}

// TestHeaderChanges: what an MTA would misread is not sent, and not more is held back than
// holdBytes.
func TestHeaderChanges(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	c := newConn(ours, time.Minute, func(error) {}, func() {})
	defer c.Close()
	for _, bad := range []field{
		{"X-A\x00", "v"}, {"X-A", "v\x00w"}, {"X-A", "v\r\nX-B: w"}, {"X-A", strings.Repeat("v", maxChange)},
	} {
		if err := c.change('i', 0, bad.name, bad.value); err == nil || len(c.out) > 0 {
			t.Errorf("%.20q: %v, %d octets held back", bad, err, len(c.out))
		}
	}
	got := make(chan int)
	go func() {
		n, _ := io.Copy(io.Discard, theirs)
		got <- int(n)
	}()
	sent := 0
	for sent <= holdBytes {
		if len(c.out) != sent {
			t.Fatalf("%d of %d octets are held back", len(c.out), sent)
		}
		if err := c.change('i', 0, "X-A", strings.Repeat("v", 1000)); err != nil {
			t.Fatal(err)
		}
		sent += frameHeader + 1 + 4 + len("X-A") + 1 + 1000 + 1
	}
	if len(c.out) != 0 {
		t.Errorf("%d octets are held back", len(c.out))
	}
	_ = c.Close()
	if n := <-got; n != sent {
		t.Errorf("%d octets arrived, want %d", n, sent)
	}
}

// TestBytesOneByOne has a slow MTA send everything a byte at a time.
func TestBytesOneByOne(t *testing.T) {
	ours, theirs := net.Pipe()
	var refused error
	c := newConn(ours, time.Minute, func(err error) { refused = err }, func() {})
	var stream []byte
	stream = append(stream, optNeg()...)
	stream = append(stream, frame('L', "Subject\x00"+strings.Repeat("x", 3*readBuffer)+"\x00")...)
	stream = append(stream, frame('E', "")...)
	go func() {
		for i := range stream {
			if _, err := theirs.Write(stream[i : i+1]); err != nil {
				return
			}
		}
		_ = theirs.Close()
	}()
	got, err := io.ReadAll(c)
	if err != nil || refused != nil {
		t.Fatalf("read: %v, refused: %v", err, refused)
	}
	if !bytes.Equal(got, stream) {
		t.Error("the bytes read are not the bytes sent")
	}
	_ = c.Close()
}

// TestWritesAreHeld counts what leaves the connection and when.
func TestWritesAreHeld(t *testing.T) {
	ours, theirs := net.Pipe()
	c := newConn(ours, time.Minute, func(error) {}, func() {})
	arrived := make(chan string, 10)
	go func() {
		defer close(arrived)
		buf := make([]byte, 1<<20)
		for {
			n, err := theirs.Read(buf)
			if err != nil {
				return
			}
			arrived <- string(buf[:n])
		}
	}()
	write := func(b []byte) {
		t.Helper()
		// As the library does it: head and command, then data.
		if _, err := c.Write(b[:5]); err != nil {
			t.Fatal(err)
		}
		if len(b) > 5 {
			if _, err := c.Write(b[5:]); err != nil {
				t.Fatal(err)
			}
		}
	}
	change, progress, answer := frame('m', "\x00\x00\x00\x01X-Auth-Key\x00\x00"), frame('p', ""), frame('a', "")
	write(change)
	if !c.held.Load() {
		t.Error("a change was not held back")
	}
	write(progress)
	if got, want := <-arrived, string(change)+string(progress); got != want {
		t.Errorf("at progress %q arrived, want %q", got, want)
	}
	write(change)
	write(answer)
	go func() { _, _ = c.Read(make([]byte, 1)) }()
	if got, want := <-arrived, string(change)+string(answer); got != want {
		t.Errorf("at the next read %q arrived, want %q in one piece", got, want)
	}
	_ = theirs.Close()
	<-arrived
	_ = c.Close()
}

// TestIdleConnectionIsClosed uses a short limit; the frame that never ends is
// counted from its start.
func TestIdleConnectionIsClosed(t *testing.T) {
	for name, first := range map[string][]byte{"silent": nil, "half a frame": {0, 0, 0, 13, 'O', 0}} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer theirs.Close()
			c := newConn(ours, 50*time.Millisecond, func(error) {}, func() {})
			defer c.Close()
			go func() { _, _ = theirs.Write(first) }()
			if _, err := c.Read(make([]byte, 4)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read: %v, want a deadline exceeded", err)
			}
		})
	}
}

func TestConnectionLimit(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	for range testLimits.Connections {
		c := r.dialRaw()
		if _, err := c.Write(optNeg()); err != nil {
			t.Fatal(err)
		}
		if _, _, err := readFrame(c); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if _, _, err := readFrame(r.dialRaw()); !errors.Is(err, io.EOF) {
			t.Errorf("one connection too many: %v, want it closed", err)
		}
	}
	if n := strings.Count(r.log.String(), "too many milter connections"); n != 1 {
		t.Errorf("%d log lines, want one a minute", n)
	}
}

// TestTCP shows the same over TCP, where TCP_QUICKACK is set.
func TestTCP(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- r.srv.Serve(ln) }()
	t.Cleanup(func() {
		_ = ln.Close()
		<-served
	})
	s, err := gomilter.NewClient("tcp", ln.Addr().String(), gomilter.WithActions(gomilter.AllClientSupportedActionMasks)).Session(gomilter.NewMacroBag())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Conn("client.test", gomilter.FamilyInet6, 25, "IPv6:2001:db8::1"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Helo("x"); err != nil {
		t.Fatal(err)
	}
	got, err := send(s, sent{from: "alice@a.test", fields: []field{{"X-Auth-Key", "good"}}})
	if err != nil || got.action != gomilter.ActionAccept || hasField(got.fields, "X-Auth-Key") {
		t.Errorf("got %v %v, %v", got.action, got.fields, err)
	}
	if !strings.Contains(r.log.String(), "client=2001:db8::1 ") {
		t.Errorf("log: %s", r.log.String())
	}
}
