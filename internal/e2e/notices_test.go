package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gomilter "github.com/d--j/go-milter"
	"github.com/emersion/go-smtp"
	"golang.org/x/sys/unix"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testmta"
)

// TestNotices is about the DSNs and notices themselves, on a Postfix that is two
// hosts: its usual listener asks one milter, the listener far another one.
func TestNotices(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	milter, err := w.NewMilter(binary, "unix")
	must(t, err)
	far := testmta.Listener{Name: "far", Options: []string{"smtpd_milters=" + milter.Socket, "mynetworks=127.0.0.0/8"}}
	o := newOffice(t, w, postfixOffice(testmta.PostfixOptions{
		RecipientDomains: []string{"rcpt.test", "many.test", withAS}, Listeners: []testmta.Listener{far},
		Main: map[string]string{"transport_maps": "inline:{ many.test=discard: }"}}))
	o.prefer(t, wishes)
	t.Run("hand-over", o.handOver)
	t.Run("forged senders", o.forgedSenders)
	t.Run("many recipients", o.manyRecipients)
	t.Run("two hosts", func(t *testing.T) { o.twoHosts(t, milter) })
}

// handOver: what cannot be handed over makes the message come again, changed in
// nothing and lost nowhere; and then what was handed over is not sent again.
func (o *office) handOver(t *testing.T) {
	desk := startDesk(t)
	for _, trouble := range []string{"nobody there", "refused", "full", "full after the first", "slow"} {
		t.Run(trouble, func(t *testing.T) {
			o.handTo = desk.addr
			defer func() { o.handTo = "" }()
			if trouble == "nobody there" {
				port, err := testdaemon.FreePort()
				must(t, err)
				o.handTo = fmt.Sprintf("127.0.0.1:%d", port)
			}
			o.configure(t, wishesYAML)
			desk.has(trouble)
			m := o.forgedBy(t, at("accept", "reject", "discard-notify", "reject-notify")...)
			m.fields += vouched
			since := len(o.milter.Log())
			c := dialSMTP(t, o.mta)
			diff(t, o.send(t, c, m), outcome{Reply: "451 4.3.0 Filter error, try again later"})
			must(t, c.Quit())
			o.wantLog(t, since, "action=tempfail", "reason=not-handed-over")

			mended := desk.has("")
			if trouble == "full after the first" {
				if len(mended) != 1 {
					t.Errorf("taken before the fault: %q, want one", mended)
				}
				o.crash(t)
			}
			o.handTo = desk.addr
			o.configure(t, wishesYAML)
			c = dialSMTP(t, o.mta)
			diff(t, o.send(t, c, m), outcome{Reply: "250", Boxes: at("accept")})
			// A client that has not heard the reply comes once more.
			diff(t, o.send(t, c, m), outcome{Reply: "250", Boxes: at("accept", "accept")})
			must(t, c.Quit())
			taken := desk.has("")
			slices.Sort(taken)
			if want := []string{"dsn alice@" + withAS, "notice discard-notify@rcpt.test", "notice reject-notify@rcpt.test"}; !slices.Equal(taken, want) {
				t.Errorf("taken in the end: %q, want %q", taken, want)
			}
			desk.clear()
		})
	}
}

// crash kills the milter and starts it again.
func (o *office) crash(t *testing.T) {
	t.Helper()
	must(t, o.milter.Signal(os.Kill))
	<-o.milter.Done()
	o.start(t)
}

// forgedSenders: whoever's address was forged hears nothing of it, by default.
func (o *office) forgedSenders(t *testing.T) {
	const senders = 30
	o.configure(t, strings.TrimPrefix(wishesYAML, "  trust: [border.test/spf]\n"))
	c := dialSMTP(t, o.mta)
	for i := range senders {
		m := o.forgedBy(t, at("accept", "reject")...)
		m.from = fmt.Sprintf("victim-%d@%s", i, withAS)
		m.fields += vouched // which nobody trusts now
		diff(t, o.send(t, c, m), outcome{Reply: "250", Boxes: []string{"accept@rcpt.test marked", "reject@rcpt.test marked"}})
	}
	must(t, c.Quit())
	all, err := o.mta.Deliveries()
	must(t, err)
	for _, d := range all {
		if d.Get("X-Authkey-Report") == "dsn" || d.Sender == "" {
			t.Fatalf("somebody was told:\n%s", d.Raw)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := o.milter.WaitLog(ctx, "msg=message", fmt.Sprintf("from=victim-%d@", senders-1)); err != nil { // the last one
		t.Error(err)
	}
	if n := strings.Count(o.milter.Log(), "why=unauthenticated"); n != senders {
		t.Errorf("%d DSNs suppressed in the log, want %d", n, senders)
	}
}

// manyRecipients: four thousand wishes cost four times what a thousand do. Postfix
// itself needs longer for those who are taken off, since it searches its queue file for
// each, so that the cost is taken at the milter's socket; it is the processor's time
// that the milter uses, which others on the machine do not make longer.
func (o *office) manyRecipients(t *testing.T) {
	const many = 1000
	actions := strings.Fields("accept mark discard reject")
	var yaml strings.Builder
	for i := range 4 * many {
		fmt.Fprintf(&yaml, "- {recipient: r%d@many.test, pass: %s}\n", i, actions[i%len(actions)])
	}
	o.prefer(t, yaml.String())
	defer o.prefer(t, wishes)
	o.configure(t, wishesYAML+"mark: {readdress: '{local}+spam@{domain}'}\n")
	message := func(n int) *mail {
		m := &mail{from: "alice@" + withAS, fields: "X-Auth-Key: " + o.key(t, "alice@"+withAS) + "\r\n"}
		for i := range n {
			m.rcpts = append(m.rcpts, fmt.Sprintf("r%d@many.test", i))
		}
		return m
	}

	c := dialSMTP(t, o.mta)
	m := message(many)
	reply := sendMail(t, c, m)
	must(t, c.Quit())
	if got := o.outcome(t, m, reply); got.Reply != "250" || len(got.DSN) != many/len(actions) {
		t.Errorf("%s, a DSN about %d", got.Reply, len(got.DSN))
	}

	var took [2]time.Duration // by number of recipients, the best of some
	for range 5 {
		for i, n := range []int{many, 4 * many} {
			began := cpuTime(t, o.milter.Pid())
			changes := o.atSocket(t, message(n))
			if d := cpuTime(t, o.milter.Pid()) - began; took[i] == 0 || d < took[i] {
				took[i] = d
			}
			if want := n/4*3 + n/4; changes != want { // three of four go, and one of them elsewhere
				t.Fatalf("%d changes of the envelope, want %d", changes, want)
			}
		}
	}
	t.Logf("%d recipients take %v, %d take %v", many, took[0], 4*many, took[1])
	if took[1] > 4*2*took[0] {
		t.Error("the cost of each grows with their number")
	}
}

// cpuTime is how long a process has had a processor so far, all its threads together.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	var used unix.Timespec
	must(t, unix.ClockGettime(int32(^pid<<3|2), &used)) // clock_getcpuclockid(3)
	return time.Duration(used.Nano())
}

// atSocket takes a message to the milter as an MTA does, and counts how many
// recipients are deleted and added.
func (o *office) atSocket(t *testing.T, m *mail) (changes int) {
	t.Helper()
	client := gomilter.NewClient(o.milter.Network, o.milter.Address, gomilter.WithActions(gomilter.AllClientSupportedActionMasks),
		gomilter.WithReadTimeout(patience), gomilter.WithWriteTimeout(patience))
	s, err := client.Session(gomilter.NewMacroBag())
	must(t, err)
	defer s.Close()
	ok := func(_ *gomilter.Action, err error) {
		t.Helper()
		must(t, err)
	}
	ok(s.Conn("client.test", gomilter.FamilyInet, 25, "127.0.0.1"))
	ok(s.Helo("client.test"))
	ok(s.Mail(m.from, ""))
	for _, rcpt := range m.rcpts {
		ok(s.Rcpt(rcpt, ""))
	}
	ok(s.DataStart())
	header, _, _ := strings.Cut(string(m.data()), "\r\n\r\n")
	for field := range strings.SplitSeq(header, "\r\n") {
		name, value, _ := strings.Cut(field, ": ")
		ok(s.HeaderField(name, value, nil))
	}
	ok(s.HeaderEnd())
	ok(s.BodyChunk([]byte("Hello.\r\n")))
	mods, action, err := s.End()
	must(t, err)
	if action.Type != gomilter.ActionAccept {
		t.Fatalf("%+v", action)
	}
	for _, mod := range mods {
		if mod.Type == gomilter.ActionDelRcpt || mod.Type == gomilter.ActionAddRcpt {
			changes++
		}
	}
	return changes
}

// twoHosts: one host's notice, at a host that would have something to say about
// everything, stays the only one.
func (o *office) twoHosts(t *testing.T, milter *lab.Milter) {
	const everything = "{pass: discard-notify, none: discard-notify, nokey: discard-notify, fail: discard-notify, permerror: discard-notify, temperror: discard-notify}"
	const strict = "  dsn: always\npolicy: " + everything + "\nfrom: {check: enforce, actions: " + everything + "}\n"
	postfix := o.mta.(*testmta.Postfix)
	far := &office{w: o.w, milter: milter, mta: postfix, relay: postfix.SMTPAddr(), places: map[string]string{"STATE": t.TempDir()}}
	far.write(t, strict)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, milter.StartListening(ctx))
	o.handTo = postfix.Listener("far")
	defer func() { o.handTo = "" }()
	o.configure(t, "  dsn: always\npreferences: {source: \"file:PREFERENCES\"}\npolicy: {nokey: discard-notify}\n")

	reports := func() (found []testmta.Message) {
		t.Helper()
		must(t, postfix.WaitIdle(ctx))
		all, err := postfix.Deliveries()
		must(t, err)
		return slices.DeleteFunc(all, func(d testmta.Message) bool { return d.Get("X-Authkey-Report") == "" })
	}
	before := len(reports())
	near, away := dialSMTP(t, postfix), dialAddr(t, postfix.Listener("far"))
	diff(t, o.send(t, near, o.forgedBy(t, at("accept", "discard-notify", "reject")...)),
		outcome{Reply: "250", Boxes: at("accept"), DSN: at("reject"), Notices: []string{"discard-notify@rcpt.test de"}})
	all := reports()
	if len(all) != before+2 {
		t.Fatalf("%d DSNs and notices, want one of each", len(all)-before)
	}
	// A forwarder that writes itself into MAIL FROM sends them on, to either host.
	for _, report := range all[before:] {
		content := report.Content()
		unsigned := bytes.Replace(content, []byte("Auto-Submitted: "+report.Get("Auto-Submitted")+"\r\n"), nil, 1)
		for _, c := range []*testmta.Client{near, away} {
			for _, data := range [][]byte{content, unsigned} { // some take off what they do not know
				reply, err := c.Send(testmta.Transaction{MailFrom: "alice@" + withAS, Rcpts: at("forwarded"), Data: data})
				must(t, err)
				if !reply.Accepted {
					t.Errorf("sent on: %s", reply.Final)
				}
			}
		}
	}
	if after := reports(); len(after) != before+2 {
		t.Errorf("reports about reports:\n%s", after[len(after)-1].Raw)
	}
	_, err := milter.WaitLog(ctx, "msg=message", "action=discard-notify", "from=alice@"+withAS)
	must(t, err)
	must(t, near.Quit())
	must(t, away.Quit())
}

func dialAddr(t *testing.T, addr string) *testmta.Client {
	t.Helper()
	c, err := testmta.Dial(addr)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// A desk is an MTA that takes notices, or has its troubles.
type desk struct {
	addr    string
	mu      sync.Mutex
	trouble string
	idle    chan struct{} // closed once there is no trouble any more
	taken   []string      // "notice bob@rcpt.test"
}

func startDesk(t *testing.T) *desk {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	d := &desk{addr: l.Addr().String(), idle: make(chan struct{})}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &deskSession{desk: d}, nil }))
	server.Domain, server.EnableDSN, server.ErrorLog = "desk.test", true, discard{}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		d.has("")
		must(t, server.Close())
		<-done
	})
	return d
}

type discard struct{}

func (discard) Printf(string, ...any) {}
func (discard) Println(...any)        {}

// has gives the desk some trouble, "" for none, and returns what it has taken.
func (d *desk) has(trouble string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.trouble == "" && trouble != "":
		d.idle = make(chan struct{})
	case d.trouble != "" && trouble == "":
		close(d.idle)
	}
	d.trouble = trouble
	return slices.Clone(d.taken)
}

func (d *desk) clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.taken = nil
}

func (d *desk) state() (trouble string, idle chan struct{}, taken int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.trouble, d.idle, len(d.taken)
}

type deskSession struct {
	*desk
	rcpt string
}

var full = &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 3, 1}, Message: "Insufficient system storage"}

func (s *deskSession) Mail(string, *smtp.MailOptions) error {
	switch trouble, idle, taken := s.state(); {
	case trouble == "slow":
		<-idle
	case trouble == "full", trouble == "full after the first" && taken > 0:
		return full
	}
	return nil
}

func (s *deskSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if trouble, _, _ := s.state(); trouble == "refused" {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "Relay access denied"}
	}
	s.rcpt = to
	return nil
}

func (s *deskSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(b), "\r\nX-Authkey-Report: ")
	kind, _, _ := strings.Cut(rest, "\r\n")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = append(s.taken, kind+" "+s.rcpt)
	return nil
}

func (s *deskSession) Reset()        {}
func (s *deskSession) Logout() error { return nil }
