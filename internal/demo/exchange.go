package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/lab"
)

// The two domains, and their users.
const (
	domainA = "a.example"
	domainB = "b.example"
	alice   = "alice@" + domainA
	mallory = "mallory@" + domainA
	bob     = "bob@" + domainB
)

// What is refused.
const (
	keyMissing = "550 5.7.1 Sender address not authenticated: AuthKey missing"
	keyInvalid = "550 5.7.1 Sender address not authenticated: AuthKey invalid"
)

const (
	// revokedLimit is how long a revoked key may pass: far more than answerTTL.
	revokedLimit = time.Minute
	// retryPause is between two messages with the stolen key.
	retryPause = 200 * time.Millisecond
)

// An exchange is the mail between two sites.
type exchange struct {
	world *lab.World
	a, b  *site
	keys  []string // all that were used, to look for
	sent  int
}

// openExchange opens both sites and has each send its mail to the other.
func openExchange(ctx context.Context, w *lab.World, p programs, start startMTA) (_ *exchange, err error) {
	s := &exchange{world: w}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.a, err = openSite(ctx, w, p, start, domainA, alice, mallory); err != nil {
		return nil, err
	}
	if s.b, err = openSite(ctx, w, p, start, domainB, bob); err != nil {
		return nil, err
	}
	if err = s.a.mta.route(ctx, s.b.mta); err != nil {
		return nil, err
	}
	return s, s.b.mta.route(ctx, s.a.mta)
}

func (s *exchange) close() (err error) {
	for _, o := range []*site{s.a, s.b} {
		if o != nil {
			err = errors.Join(err, o.close())
		}
	}
	return err
}

// key is the key of an address now, and remembers it.
func (s *exchange) key(ctx context.Context, o *site, address string) (string, error) {
	key, err := o.key(ctx, address)
	if err == nil {
		s.keys = append(s.keys, key)
	}
	return key, err
}

// A trial is a message, and what should be done with it.
type trial struct {
	what    string
	home    *site  // of the user who sends it; nil where it goes straight to the recipient's MX
	login   string // at home
	from    string
	author  string // the From field
	to      string
	key     string // brought by the client
	note    string // what home's milter says
	verdict string // what the recipient's milter says, as verdictOf has it
	outcome string // isDelivered, or the reply
}

// An event is what was done with the message of a trial.
type event struct {
	trial
	gotNote, gotVerdict, gotOutcome string
	more                            string // about the outcome
	copy                            string // as delivered
	faults                          []string
}

// sendAll makes all trials. It writes to w what it waits for.
func (s *exchange) sendAll(ctx context.Context, w io.Writer) ([]event, error) {
	stolen, err := s.key(ctx, s.a, alice)
	if err != nil {
		return nil, err
	}
	own, err := s.key(ctx, s.a, mallory)
	if err != nil {
		return nil, err
	}
	if _, err := s.key(ctx, s.b, bob); err != nil {
		return nil, err
	}
	misuse := trial{what: "a thief of alice's key sends as alice, straight to b", from: alice, author: alice, to: bob, key: stolen,
		verdict: "pass", outcome: isDelivered}
	var events []event
	for _, st := range append(s.trials(own), misuse) {
		e, err := s.send(ctx, st)
		if err != nil {
			return events, fmt.Errorf("%s: %w", st.what, err)
		}
		events = append(events, e)
	}
	misuse.what, misuse.verdict, misuse.outcome = "alice's keys are revoked; the thief goes on", "fail invalid-key", keyInvalid
	after, err := s.revocation(ctx, misuse, w)
	if err != nil {
		return events, fmt.Errorf("%s: %w", misuse.what, err)
	}
	return append(events, after...), nil
}

// trials are those before a key is stolen. own is mallory's key.
func (s *exchange) trials(own string) []trial {
	return []trial{
		{what: "alice writes to bob", home: s.a, login: alice, from: alice, author: alice, to: bob,
			note: "key-attached", verdict: "pass", outcome: isDelivered},
		{what: "bob answers", home: s.b, login: bob, from: bob, author: bob, to: alice,
			note: "key-attached", verdict: "pass", outcome: isDelivered},
		{what: "mallory logs in at a, sends as alice", home: s.a, login: mallory, from: alice, author: alice, to: bob,
			note: "sender-not-allowed", verdict: "fail required", outcome: keyMissing},
		{what: "the same, only the From is alice's", home: s.a, login: mallory, from: mallory, author: alice, to: bob,
			note: "from-not-allowed", verdict: "fail required", outcome: keyMissing},
		{what: "mallory sends as alice straight to b, no key", from: alice, author: alice, to: bob,
			verdict: "fail required", outcome: keyMissing},
		{what: "the same with mallory's own key", from: alice, author: alice, to: bob, key: own,
			verdict: "fail invalid-key", outcome: keyInvalid},
		{what: "the same, only the From is alice's", from: mallory, author: alice, to: bob, key: own,
			verdict: "pass, From fail", outcome: keyInvalid},
	}
}

// site is the one of an address.
func (s *exchange) site(address string) *site {
	if strings.HasSuffix(address, "@"+s.a.domain) {
		return s.a
	}
	return s.b
}

// send sends one message and reads what both milters and the mailbox say of it.
func (s *exchange) send(ctx context.Context, st trial) (event, error) {
	s.sent++
	e, there := event{trial: st}, s.site(st.to)
	l := newMessage(st.from, st.author, []string{st.to}, fmt.Sprintf("letter %d", s.sent), keyField(st.key))
	logged := len(there.milter.Log())
	var got found
	var err error
	if st.home == nil {
		got, err = there.mta.deliver(ctx, l)
	} else {
		loggedHome := len(st.home.milter.Log())
		if got, err = st.home.mta.submit(ctx, st.login, l); err != nil {
			return e, err
		}
		var fields map[string]string
		fields, err = messageLine(ctx, st.home.milter, loggedHome)
		e.gotNote = fields["note"]
	}
	if err != nil {
		return e, err
	}
	fields, err := messageLine(ctx, there.milter, logged)
	if err != nil {
		return e, fmt.Errorf("%s%s, and at %s %w", got.outcome, e.more, there.domain, err)
	}
	e.gotVerdict, e.gotOutcome = verdictOf(fields), got.outcome
	if got.bounce != "" {
		e.more = ", bounced to " + got.bounce
	}
	e.compare(got, s.keys)
	return e, nil
}

// verdictOf is a milter's finding in a line of its log: result and reason, and the
// result of the From field where that is another.
func verdictOf(fields map[string]string) string {
	verdict := strings.TrimSpace(fields["result"] + " " + fields["reason"])
	if from := fields["from_result"]; from != "" && from != fields["result"] {
		verdict += ", From " + from
	}
	return verdict
}

// compare notes what is not as it should be.
func (e *event) compare(got found, keys []string) {
	for _, c := range []struct{ what, got, want string }{
		{"the sender's milter says", e.gotNote, e.note},
		{"the recipient's milter says", e.gotVerdict, e.verdict},
		{"the outcome is", e.gotOutcome, e.outcome},
	} {
		if c.got != c.want {
			e.faults = append(e.faults, fmt.Sprintf("%s %q, should be %q", c.what, c.got, c.want))
		}
	}
	if len(got.bytes) == 0 {
		return
	}
	e.copy = string(got.bytes)
	if hasKey(e.copy, keys) {
		e.faults = append(e.faults, "a key was delivered")
	}
	if res, want := fieldOf(e.copy, "Authentication-Results"), "x-authkey="+e.verdict+" smtp.mailfrom="+e.from; !strings.Contains(res, want) {
		e.faults = append(e.faults, fmt.Sprintf("delivered with the result %q, should be %q", res, want))
	}
	if agent := fieldOf(e.copy, "X-Auth-Agent"); (agent != "") != (e.home != nil) {
		e.faults = append(e.faults, fmt.Sprintf("delivered with X-Auth-Agent %q", agent))
	}
}

// revocation revokes alice's keys. Recipients may rely for a while on what they were
// told before, so that the message with the stolen key is repeated until it is refused; and her
// own milter looks at its list now and then, and attaches the old key until it has.
func (s *exchange) revocation(ctx context.Context, misuse trial, w io.Writer) ([]event, error) {
	begun := time.Now()
	if err := s.a.revoke(ctx, alice); err != nil {
		return nil, err
	}
	logged := len(s.a.milter.Log())
	if _, err := s.key(ctx, s.a, alice); err != nil {
		return nil, err
	}
	fmt.Fprintf(w, "authkey-server address revoke %s, SIGHUP, and waiting: b may rely on what it was told for %s,\n"+
		"and a's milter looks at its address list every second …\n", alice, answerTTL)
	last, err := s.untilRefused(ctx, misuse, begun)
	if err != nil {
		return nil, err
	}
	noticed, err := lineAfter(ctx, s.a.milter, logged, `msg="attaching keys"`)
	if err != nil {
		return nil, err
	}
	at, err := time.Parse(time.RFC3339, noticed["time"])
	if err != nil {
		return nil, err
	}
	e, err := s.send(ctx, trial{what: "alice writes to bob again, with her new key", home: s.a, login: alice, from: alice, author: alice, to: bob,
		note: "key-attached", verdict: "pass", outcome: isDelivered})
	e.more = fmt.Sprintf(", a's milter had the new list %.1f s after", at.Sub(begun).Seconds())
	return []event{last, e}, err
}

// untilRefused repeats a message, and returns what became of the last one.
func (s *exchange) untilRefused(ctx context.Context, st trial, begun time.Time) (event, error) {
	ctx, cancel := context.WithTimeout(ctx, revokedLimit)
	defer cancel()
	for passed := 0; ; passed++ {
		e, err := s.send(ctx, st)
		if err != nil || e.gotOutcome != isDelivered {
			e.more = fmt.Sprintf(", %.1f s after; %d passed before", time.Since(begun).Seconds(), passed)
			return e, err
		}
		select {
		case <-ctx.Done():
			return e, fmt.Errorf("not refused yet, after %d messages: %w", passed+1, ctx.Err())
		case <-time.After(retryPause):
		}
	}
}
