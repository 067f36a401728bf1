package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testmta"
)

// An office is a mail system that receives: a real MTA, the milter, and a listener
// of the same MTA without milters, to which the milter hands DSNs and notices.
type office struct {
	w      *lab.World
	milter *lab.Milter
	mta    testmta.MTA
	relay  string            // that listener
	handTo string            // notify.smtp; "" for relay
	places map[string]string // standing in a configuration for what is different on each machine
	keys   []string          // that were sent: none of them may be anywhere
}

// A startOffice starts an MTA that asks the milter at socket, and returns the
// address of its relay too.
type startOffice func(t *testing.T, socket string) (mta testmta.MTA, relay string)

// postfixOffice is a Postfix with a relay. Its main parameters are from options.
func postfixOffice(options testmta.PostfixOptions) startOffice {
	return func(t *testing.T, socket string) (testmta.MTA, string) {
		options.Milters = []string{socket}
		options.Listeners = append(options.Listeners, testmta.RelayListener("relay"))
		postfix, err := testmta.StartPostfix(t.Context(), options)
		must(t, err)
		return postfix, postfix.Listener("relay")
	}
}

// sendmailOffice is a Sendmail with these aliases and a relay.
func sendmailOffice(aliases ...string) startOffice {
	return func(t *testing.T, socket string) (testmta.MTA, string) {
		port, err := testdaemon.FreePort()
		must(t, err)
		relay := fmt.Sprintf("DAEMON_OPTIONS(`Family=inet, Name=Relay, Addr=127.0.0.1, Port=%d, InputMailFilters=')", port)
		sendmail, err := testmta.StartSendmail(t.Context(), testmta.SendmailOptions{
			Prefix: sendmailPrefix, Milters: []string{socket}, Aliases: aliases, MC: []string{relay}})
		must(t, err)
		return sendmail, fmt.Sprintf("127.0.0.1:%d", port)
	}
}

// newOffice starts an MTA and its milter with the defaults. Both end with the test,
// and then no key may be found in what they leave.
func newOffice(t *testing.T, w *lab.World, start startOffice) *office {
	t.Helper()
	milter, err := w.NewMilter(binary, "unix")
	must(t, err)
	o := &office{w: w, milter: milter, places: map[string]string{"PREFERENCES": filepath.Join(filepath.Dir(milter.Config), "preferences.yaml"), "STATE": t.TempDir()}}
	o.mta = startMTA(t, func(t *testing.T, socket string) (testmta.MTA, error) {
		var mta testmta.MTA
		mta, o.relay = start(t, socket)
		return mta, nil
	}, milter.Socket)
	t.Cleanup(func() { o.lookForKeys(t) })
	o.write(t, "")
	o.start(t)
	return o
}

// inForce is what the milter logs when it has a configuration: at its start
// somewhat after it listens.
const inForce = "configuration in force"

// start starts the milter.
func (o *office) start(t *testing.T) {
	t.Helper()
	before := o.milter.Log()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, o.milter.StartListening(ctx))
	must(t, o.waitInForce(ctx, before))
}

// waitInForce waits until the milter has said so once more than it had in a log.
func (o *office) waitInForce(ctx context.Context, before string) error {
	return testdaemon.Poll(ctx, func() (bool, error) {
		log := o.milter.Log()
		const refused = "configuration not reloaded"
		if strings.Count(log, refused) > strings.Count(before, refused) {
			return false, fmt.Errorf("refused:\n%s", log)
		}
		return strings.Count(log, inForce) > strings.Count(before, inForce), nil
	})
}

// write puts a configuration in place. more goes behind MilterConfig.
func (o *office) write(t *testing.T, more string) {
	t.Helper()
	handTo := o.handTo
	if handTo == "" {
		handTo = o.relay
	}
	yaml := strings.Replace(o.w.MilterConfig(o.milter.Listen), o.w.Told.Addr(), handTo, 1) + "  state_dir: STATE\n" + more
	for name, place := range o.places {
		yaml = strings.ReplaceAll(yaml, name, place)
	}
	// Not in place: one that only lacks the end of the one before would look cut off.
	must(t, testdaemon.Replace(o.milter.Config, []byte(yaml), 0o644))
}

// configure has the milter read another configuration, and waits until it is in
// force for every message to come.
func (o *office) configure(t *testing.T, more string) {
	t.Helper()
	o.write(t, more)
	o.reload(t)
}

func (o *office) reload(t *testing.T) {
	t.Helper()
	before := o.milter.Log()
	must(t, o.milter.Signal(syscall.SIGHUP))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, o.waitInForce(ctx, before))
}

// prefer writes the file that PREFERENCES stands for.
func (o *office) prefer(t *testing.T, yaml string) {
	t.Helper()
	must(t, os.WriteFile(o.places["PREFERENCES"], []byte(yaml), 0o644))
}

// forgedBy is a message from alice@pass.test with the live key of somebody else.
func (o *office) forgedBy(t *testing.T, rcpts ...string) *mail {
	t.Helper()
	return &mail{from: "alice@" + withAS, rcpts: rcpts, fields: "X-Auth-Key: " + o.key(t, "alice@"+requiring) + "\r\n"}
}

// key is the key of an address now, and looked for in the end.
func (o *office) key(t *testing.T, address string) string {
	t.Helper()
	key := mustKey(t, o.w, address)
	if !slices.Contains(o.keys, key) {
		o.keys = append(o.keys, key)
	}
	return key
}

// An outcome is what became of a message, as its client and everybody else could
// see it.
type outcome struct {
	Reply   string   // "250", or the whole of a refusal
	Boxes   []string // each copy in a mailbox, by describe
	Held    []string // recipients for whom the MTA holds it
	DSN     []string // recipients whom the sender got a DSN about
	Notices []string // recipients who got a notice, with the language if it is not English
}

// describe says whose a copy is and how it can be told from others.
func describe(m testmta.Message) string {
	s := m.Recipient
	if m.Get("X-Spam-Flag") != "" {
		s += " marked"
	}
	for _, v := range m.Values("X-Authkey-Quarantine") {
		s += " for " + v
	}
	return s
}

// send sends a message and waits for everything that comes of it.
func (o *office) send(t *testing.T, c *testmta.Client, m *mail) outcome {
	t.Helper()
	return o.outcome(t, m, sendMail(t, c, m))
}

// outcome reads what became of a message.
func (o *office) outcome(t *testing.T, m *mail, reply testmta.Outcome) outcome {
	t.Helper()
	got := outcome{Reply: "250"}
	if !reply.Accepted {
		got.Reply = reply.Final.String()
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, o.mta.WaitIdle(ctx))
	all, err := o.mta.Deliveries()
	must(t, err)
	for _, d := range all {
		switch {
		case d.Get("X-Authkey-Report") == "" && d.Get("Subject") == m.subject:
			got.Boxes = append(got.Boxes, describe(d))
		case d.Get("X-Authkey-Report") != "" && d.Get("In-Reply-To") == m.id():
			got.told(t, m, d)
		}
	}
	held, err := o.mta.Held()
	must(t, err)
	for _, entry := range held {
		if id := reply.QueueID(); id != "" && entry.ID == id {
			got.Held = append(got.Held, entry.Recipients...)
		}
	}
	return got
}

// told takes one DSN or notice, which must have the form of one.
func (got *outcome) told(t *testing.T, m *mail, d testmta.Message) {
	t.Helper()
	if d.Sender != "" || len(d.Above()) != 0 {
		t.Errorf("a report from %q, with %d fields of a filter:\n%s", d.Sender, len(d.Above()), d.Raw)
	}
	auto := map[string]string{"dsn": "auto-replied", "notice": "auto-generated"}[d.Get("X-Authkey-Report")]
	if d.Get("Auto-Submitted") != auto || auto == "" {
		t.Errorf("Auto-Submitted: %q\n%s", d.Get("Auto-Submitted"), d.Raw)
	}
	if auto == "auto-replied" {
		if d.Recipient != m.from {
			t.Errorf("a DSN to %s about mail from %s", d.Recipient, m.from)
		}
		for _, r := range dsnStatus(t, d) {
			got.DSN = append(got.DSN, strings.TrimPrefix(r.Get("Final-Recipient"), "rfc822; "))
			if r.Get("Status") != "5.7.1" || r.Get("Action") != "failed" {
				t.Errorf("DSN says %v", r)
			}
		}
		return
	}
	who, meant := d.Recipient, strings.Trim(d.Get("To"), "<>")
	for _, other := range m.rcpts { // a recipient may be a blind copy's
		if other != meant && bytes.Contains(d.Raw, []byte(other)) {
			t.Errorf("the notice to %s names %s:\n%s", who, other, d.Raw)
		}
	}
	if language := d.Get("Content-Language"); language != "en" {
		who += " " + language
	}
	got.Notices = append(got.Notices, who)
}

// dsnStatus reads the groups about recipients in a DSN's report.
func dsnStatus(t *testing.T, d testmta.Message) []textproto.MIMEHeader {
	t.Helper()
	kind, params, err := mime.ParseMediaType(d.Get("Content-Type"))
	must(t, err)
	if kind != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Errorf("a DSN of type %s %v", kind, params)
	}
	parts := multipart.NewReader(bytes.NewReader(d.Body()), params["boundary"])
	var types []string
	var groups []textproto.MIMEHeader
	for {
		part, err := parts.NextPart()
		if err == io.EOF {
			break
		}
		must(t, err)
		content, err := io.ReadAll(part)
		must(t, err)
		types = append(types, part.Header.Get("Content-Type"))
		if types[len(types)-1] != "message/delivery-status" {
			continue
		}
		for i, group := range bytes.Split(bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n")), []byte("\n\n")) {
			header, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(append(group, "\n\n"...)))).ReadMIMEHeader()
			if err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if i > 0 { // the first is about the message
				groups = append(groups, header)
			}
		}
	}
	if want := []string{"text/plain; charset=utf-8", "message/delivery-status", "text/rfc822-headers"}; !slices.Equal(types, want) {
		t.Errorf("the parts of a DSN are %q", types)
	}
	return groups
}

// diff compares what became of a message with what should have, in any order.
func diff(t *testing.T, got, want outcome) {
	t.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.SortSlices(strings.Compare)); d != "" {
		t.Errorf("what became of it (-want +got):\n%s", d)
	}
}

// wantLog waits for the milter's line about the one message since its log had that
// length, and looks for parts of it.
func (o *office) wantLog(t *testing.T, since int, parts ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var line string
	must(t, testdaemon.Poll(ctx, func() (bool, error) {
		for l := range strings.Lines(o.milter.Log()[since:]) {
			if strings.Contains(l, "msg=message ") && strings.HasSuffix(l, "\n") && !strings.Contains(l, "action=aborted") {
				line = l
			}
		}
		return line != "", nil
	}))
	for _, part := range parts {
		if !strings.Contains(line, part) {
			t.Errorf("the log line lacks %q:\n%s", part, line)
		}
	}
}

// keyPiece is how much of a key nobody would write by chance.
const keyPiece = 8

// lookForKeys searches everything that mail and milter have left for pieces of keys.
func (o *office) lookForKeys(t *testing.T) {
	t.Helper()
	log := o.milter.Log()
	if strings.Contains(log, "DATA RACE") || strings.Contains(log, "goroutine ") {
		t.Errorf("the milter's log:\n%s", log)
	}
	left := map[string][]byte{"the milter's log": []byte(log)}
	all, err := o.mta.Deliveries()
	must(t, err)
	for i, d := range all {
		left[fmt.Sprintf("delivery %d", i)] = d.Raw
	}
	held, err := o.mta.Held()
	must(t, err)
	for _, entry := range held {
		content, err := o.mta.Cat(entry.ID)
		must(t, err)
		left["held "+entry.ID] = content
	}
	if o.mta.Name() == "postfix" { // Sendmail's log is a transcript of the SMTP sessions
		left["Postfix's log"] = []byte(o.mta.Log())
	}
	files, err := os.ReadDir(o.places["STATE"])
	must(t, err)
	for _, f := range files {
		left["the state file"], err = os.ReadFile(filepath.Join(o.places["STATE"], f.Name()))
		must(t, err)
	}
	if len(o.keys) == 0 || len(all) == 0 || len(files) == 0 {
		t.Errorf("the test is wrong: %d keys, %d deliveries, %d state files", len(o.keys), len(all), len(files))
	}
	for where, content := range left {
		for _, key := range o.keys {
			for i := 0; i+keyPiece <= len(key); i++ {
				if bytes.Contains(content, []byte(key[i:i+keyPiece])) {
					t.Errorf("a piece of a key is in %s:\n%s", where, content)
					return
				}
			}
		}
	}
}
