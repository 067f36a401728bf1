package e2e

import (
	"bufio"
	"context"
	octets "encoding/binary" // the name is taken
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testdns"
	"github.com/authkey/authkey/milter"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

const (
	faultedMessages = 10_000
	// warmUp messages meet every fault many times: what is remembered of domains and
	// servers is in place, and a buffer for everybody.
	warmUp     = 2_000
	mtaClients = 16
	// heapSlack is what the heap may have grown by: a leak of 52 octets a message.
	heapSlack = 512 << 10
)

// badServers are the ways in which an AS answers a question; nil: by INVALIDKEY.
var badServers = map[string]func(c net.Conn, seq, address string){
	"invalid": func(c net.Conn, seq, address string) {
		fmt.Fprintf(c, "VERIFY_REPLY %s %s INVALIDKEY\r\n", seq, address)
	},
	"tempfail": func(c net.Conn, seq, address string) { fmt.Fprintf(c, "VERIFY_REPLY %s %s TEMPFAIL\r\n", seq, address) },
	"busy":     func(c net.Conn, seq, _ string) { fmt.Fprintf(c, "ERROR %s busy\r\n", seq) },
	"another":  func(c net.Conn, seq, _ string) { fmt.Fprintf(c, "VERIFY_REPLY %s mallory@as.test VALIDKEY\r\n", seq) },
	"unasked": func(c net.Conn, _, address string) {
		fmt.Fprintf(c, "VERIFY_REPLY 18446744073709551615 %s VALIDKEY\r\n", address)
	},
	"garbage": func(c net.Conn, _, _ string) { fmt.Fprint(c, "220 mail.test ESMTP\r\n") },
	"half":    func(c net.Conn, seq, _ string) { fmt.Fprintf(c, "VERIFY_REPLY %s", seq); c.Close() },
	"endless": func(c net.Conn, _, _ string) { fmt.Fprint(c, strings.Repeat("A", 64<<10)) },
	"close":   func(c net.Conn, _, _ string) { c.Close() },
	"silent":  func(net.Conn, string, string) {},
	"absent":  nil, // nobody listens
}

// badResolvers are the ways in which DNS answers.
var badResolvers = map[string]testdns.Behaviour{
	"servfail": testdns.Rcode(dns.RcodeServerFailure),
	"refused":  testdns.Rcode(dns.RcodeRefused),
	"lame":     testdns.Lame(),
	"nonsense": testdns.Garbage(),
	"mute":     testdns.Silent(),
	"wrongid":  testdns.WrongID(),
	"loop":     testdns.CNAMELoop(),
	"no-tcp":   testdns.TruncatedWithoutTCP(),
}

// How many domains have each kind of AS or of resolver. An AS is left alone after five
// failures, a domain is asked for again 5 s after one.
const (
	badServerDomains   = 6
	badResolverDomains = 12
)

// startBadServer starts an AS that answers so, and returns its port.
func (f *faultyWorld) startBadServer(w *lab.World, answer func(c net.Conn, seq, address string)) (port int) {
	f.t.Helper()
	if answer == nil {
		port, err := w.RefusingPort()
		must(f.t, err)
		return port
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(f.t, err)
	port = ln.Addr().(*net.TCPAddr).Port
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			f.asConns.Add(1)
			all.Go(func() {
				defer f.asConns.Add(-1)
				defer c.Close()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					words := strings.Fields(lines.Text())
					answer(c, words[1], words[2])
				}
			})
		}
	})
	// The connections end when the verifier does.
	f.t.Cleanup(func() {
		_ = ln.Close()
		all.Wait()
	})
	return port
}

// A faultyWorld is a milter in this process and everything that can go wrong for it.
type faultyWorld struct {
	t        *testing.T
	srv      *milter.Server
	verifier *verifier.Verifier
	socket   string
	domains  []string // each with a fault of its own
	reasons  reasons

	swaps, releases atomic.Int64
	asConns         atomic.Int64 // connections to AS
}

// reasons counts log lines by the reason that they have.
type reasons struct {
	mu sync.Mutex
	n  map[verifier.Reason]int
}

func (r *reasons) Write(line []byte) (int, error) {
	if _, rest, ok := strings.Cut(string(line), " reason="); ok {
		reason, _, _ := strings.Cut(rest, " ")
		r.mu.Lock()
		r.n[verifier.Reason(reason)]++
		r.mu.Unlock()
	}
	return len(line), nil
}

// newFaultyWorld starts it; end ends the milter's part of it.
func newFaultyWorld(t *testing.T) (f *faultyWorld, end func()) {
	w, err := lab.NewWorld()
	must(t, err)
	t.Cleanup(func() { must(t, w.Close()) })
	f = &faultyWorld{t: t, socket: filepath.Join(w.Dir, "milter.sock"), reasons: reasons{n: make(map[verifier.Reason]int)}}
	for kind, answer := range badServers {
		for i := range badServerDomains {
			domain := fmt.Sprintf("%s%d.as.test", kind, i)
			must(t, w.Publish(domain, lab.ASRecord(f.startBadServer(w, answer))))
			f.domains = append(f.domains, domain)
		}
	}
	for kind, behaviour := range badResolvers {
		for i := range badResolverDomains {
			domain := fmt.Sprintf("%s%d.dns.test", kind, i)
			w.DNS.Behave(domain, behaviour)
			f.domains = append(f.domains, domain)
		}
	}
	slices.Sort(f.domains)
	f.verifier = verifier.New(verifier.Options{
		Resolvers: []netip.AddrPort{netip.MustParseAddrPort(w.DNS.Addr())}, DNSTimeout: 100 * time.Millisecond, Timeout: 500 * time.Millisecond,
		ConnectTimeout: 100 * time.Millisecond, ReplyTimeout: 100 * time.Millisecond,
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	f.srv = milter.New(slog.New(slog.NewTextHandler(&f.reasons, nil)), f.engine())
	ln, err := milter.Listen("unix", f.socket, 0o600, "")
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- f.srv.Serve(ln) }()
	return f, func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		f.srv.Shutdown(ctx)
		must(t, <-served)
		f.verifier.Close()
	}
}

func (f *faultyWorld) engine() *milter.Engine {
	return &milter.Engine{
		Settings: milter.Settings{HostName: "mx.test", MarkHeader: "X-Spam-Flag", MarkValue: "YES", From: milter.FromReport, FromTimeout: time.Second},
		Limits:   milter.Limits{Connections: 2 * mtaClients, IdleTimeout: time.Minute, Recipients: 10},
		Verifier: f.verifier, Policy: policy.New(policy.Options{}),
		Release: func() { f.releases.Add(1) },
	}
}

// TestNothingIsLeftOfFaultedMessages has ten thousand messages go wrong in every way,
// and counts what remains: in one process with the milter, where goroutines and heap
// can be seen.
func TestNothingIsLeftOfFaultedMessages(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Run("messages", func(t *testing.T) {
		f, end := newFaultyWorld(t)
		defer end()
		f.run(warmUp)
		before := f.settled()
		f.run(faultedMessages)
		after := f.settled()
		t.Logf("before %+v, after %+v", before, after)
		if after.goroutines > before.goroutines || after.descriptors > before.descriptors {
			t.Errorf("%d goroutines and %d descriptors, %d and %d before", after.goroutines, after.descriptors, before.goroutines, before.descriptors)
		}
		if after.heap > before.heap+heapSlack {
			t.Errorf("%d octets on the heap, %d before", after.heap, before.heap)
		}
		if s, r := f.swaps.Load(), f.releases.Load(); s != r {
			t.Errorf("%d of %d configurations were released", r, s)
		}
		// The faults were met.
		f.reasons.mu.Lock()
		defer f.reasons.mu.Unlock()
		for _, reason := range []verifier.Reason{verifier.ReasonDNSFailure, verifier.ReasonDNSTimeout, verifier.ReasonASRefused, verifier.ReasonASTimeout,
			verifier.ReasonASViolation, verifier.ReasonASTempFail, verifier.ReasonASBusy, verifier.ReasonInvalidKey} {
			if f.reasons.n[reason] == 0 {
				t.Errorf("no message with reason=%s", reason)
			}
		}
	})
	goleak.VerifyNone(t, leaks)
}

// run sends n messages, from several MTAs at once.
func (f *faultyWorld) run(n int) {
	f.t.Helper()
	var next atomic.Int64
	failed := make(chan error, mtaClients)
	var all sync.WaitGroup
	for range mtaClients {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f.message(i); err != nil {
					failed <- fmt.Errorf("message %d: %w", i, err)
					return
				}
			}
		})
	}
	all.Wait()
	close(failed)
	for err := range failed {
		f.t.Error(err)
	}
	if f.t.Failed() {
		f.t.FailNow()
	}
}

// message sends the i-th message. A third of them break off in one way or other, the
// rest is answered although nobody could verify it.
func (f *faultyWorld) message(i int) error {
	if i%100 == 0 {
		f.swaps.Add(1)
		f.srv.Swap(f.engine())
	}
	c, err := dialMilter(f.socket)
	if err != nil {
		return err
	}
	defer c.Close()
	domain := f.domains[i%len(f.domains)]
	frames := messageFrames("alice@"+domain, "a-secret-key")
	whole := slices.Concat(frames...)
	switch round := i / len(f.domains); i % 6 {
	case 0: // the MTA dies at any octet
		return c.send(whole[:(round*7+i)%len(whole)])
	case 1: // it goes mad
		mad := []string{"\x00\x00\x00\x00", "\xff\xff\xff\xffL", "\x00\x00\x00\x01Z", "\x00\x00\x00\x03Mab", "\x00\x00\x00\x02L\x00"}
		if err := c.send(append(slices.Concat(frames[:1+i/6%len(frames)]...), mad[round%len(mad)]...)); err != nil {
			return err
		}
		return c.closedByFilter()
	case 2: // the client goes away, and the next one comes
		if err := c.send(slices.Concat(append(frames[:3:3], frame('A', ""))...)); err != nil {
			return err
		}
		frames = frames[1:]
	}
	if err := c.send(slices.Concat(frames...)); err != nil {
		return err
	}
	answer, changes, err := c.answer()
	if err != nil {
		return err
	}
	result := "temperror"
	if strings.HasPrefix(domain, "invalid") {
		result = "fail"
	}
	// A server that is asked for the first time may have to wait for the dial budget.
	if answer != 'a' || !strings.Contains(changes, "x-authkey="+result) && !strings.Contains(changes, "x-authkey=temperror") ||
		!strings.Contains(changes, "m\x00\x00\x00\x01X-Auth-Key\x00\x00") {
		return fmt.Errorf("%s: answer %q with %q", domain, answer, changes)
	}
	return nil
}

// messageFrames is one message as an MTA sends it to a filter that wants no replies
// before its end.
func messageFrames(from, key string) [][]byte {
	return [][]byte{
		frame('C', "client.test\x004\x00\x19192.0.2.1\x00"),
		frame('M', "<"+from+">\x00"),
		frame('R', "<bob@rcpt.test>\x00"),
		frame('L', "From\x00"+from+"\x00"),
		frame('L', "X-Auth-Key\x00"+key+"\x00"),
		frame('N', ""),
		frame('E', ""),
	}
}

func frame(command byte, data string) []byte {
	b := octets.BigEndian.AppendUint32(nil, uint32(1+len(data)))
	return append(append(b, command), data...)
}

// A milterClient is an MTA's end of a milter connection, of which any octet may be sent.
type milterClient struct {
	net.Conn
	in *bufio.Reader
}

// dialMilter connects and negotiates.
func dialMilter(socket string) (*milterClient, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	c := &milterClient{conn, bufio.NewReader(conn)}
	_ = conn.SetDeadline(time.Now().Add(patience))
	// Version 6, every action, every option.
	err = c.send(frame('O', "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff"))
	if err == nil {
		_, _, err = c.read()
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("negotiate: %w", err)
	}
	return c, nil
}

// send writes; that the filter has closed already is no fault of the writer's.
func (c *milterClient) send(b []byte) error {
	_, err := c.Write(b)
	var closed *net.OpError
	if errors.As(err, &closed) && !closed.Timeout() {
		return nil
	}
	return err
}

func (c *milterClient) read() (command byte, data []byte, err error) {
	var head [4]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return 0, nil, err
	}
	b := make([]byte, octets.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(c.in, b); err != nil {
		return 0, nil, err
	}
	return b[0], b[1:], nil
}

// answer reads changes of the message, up to the answer to it.
func (c *milterClient) answer() (answer byte, changes string, err error) {
	for {
		command, data, err := c.read()
		if err != nil {
			return 0, "", err
		}
		if !strings.ContainsRune("+-2behimpq", rune(command)) {
			return command, changes, nil
		}
		changes += string(command) + string(data)
	}
}

// closedByFilter waits until the filter closes the connection.
func (c *milterClient) closedByFilter() error {
	for {
		if _, _, err := c.read(); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return errors.New("the filter did not close the connection")
			}
			return nil
		}
	}
}

// A footprint is what a process holds.
type footprint struct {
	goroutines, descriptors int
	heap                    uint64
}

// settled waits until nothing moves any more, and measures. Connections to AS, which
// are kept for some time, do not count: two goroutines and a descriptor, and the same
// for the server's end, but for one of the goroutines.
func (f *faultyWorld) settled() footprint {
	f.t.Helper()
	const quiet = 30 // measurements in a row
	var last footprint
	same := 0
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	err := testdaemon.Poll(ctx, func() (bool, error) {
		open, err := descriptors(os.Getpid())
		conns := int(f.asConns.Load())
		now := footprint{goroutines: runtime.NumGoroutine() - 3*conns, descriptors: open - 2*conns}
		if now == last && f.srv.Connections() == 0 {
			same++
		} else {
			last, same = now, 0
		}
		return same == quiet, err
	})
	if err != nil {
		f.t.Fatalf("it does not come to rest: %v, %d milter connections, last %+v", err, f.srv.Connections(), last)
	}
	var m runtime.MemStats
	for range 3 { // pools and finalizers need more than one
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	last.heap = m.HeapAlloc
	return last
}
