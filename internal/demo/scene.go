package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/authkey/authkey/internal/lab"
)

// The invented domains.
const (
	sender    = "sender.test" // has an AS, alice has keys
	strict    = "strict.test" // the same, and says req=yes
	absent    = "absent.test" // publishes no AS
	down      = "down.test"   // its AS is not there
	broken    = "broken.test" // its record cannot be understood
	recipient = "bob@rcpt.test"
)

// policyYAML makes every result visible in what becomes of a message. The defaults
// are milder: nothing but fail is even marked, and only senders who are known not to
// be forged get DSNs. It begins with more of the notify section.
const policyYAML = `  dsn: always
authserv_id: mx.test
policy:
  fail: reject
  nokey: mark
  temperror: tempfail
  permerror: quarantine
from: {check: enforce, actions: {fail: reject}}
mark: {readdress: "{local}+spam@{domain}"}
preferences: {source: "file:%s"}
`

// preferences are those of the recipients of one forged message.
const preferences = `
- {recipient: "accept@rcpt.test", fail: accept}
- {recipient: "mark@rcpt.test", fail: mark}
- {recipient: "discard@rcpt.test", fail: discard}
- {recipient: "discard-notify@rcpt.test", fail: discard-notify, language: de}
- {recipient: "reject@rcpt.test", fail: reject}
- {recipient: "reject-notify@rcpt.test", fail: reject-notify}
`

// A scene is the mail system of the first part, with its milter.
type scene struct {
	world  *lab.World
	milter *lab.Milter
	asPort int
	keys   []string // every key that was sent, to look for
}

func newScene(ctx context.Context, w *lab.World, binary string) (*scene, error) {
	for _, domain := range []string{sender, strict, down} {
		if err := w.AddDomain(domain, "alice"); err != nil {
			return nil, err
		}
	}
	port, _, err := w.ServeAS(sender, strict)
	if err != nil {
		return nil, err
	}
	gone, err := w.RefusingPort()
	if err != nil {
		return nil, err
	}
	for domain, record := range map[string]string{
		sender: lab.ASRecord(port),
		strict: lab.ASRecord(port, "req=yes"),
		down:   lab.ASRecord(gone),
		broken: "AS=as.broken.test; port=seventy",
	} {
		if err := w.Publish(domain, record); err != nil {
			return nil, err
		}
	}
	list := filepath.Join(w.Dir, "preferences.yaml")
	if err := os.WriteFile(list, []byte(preferences), 0o644); err != nil {
		return nil, err
	}
	milter, err := w.StartMilter(ctx, binary, "unix", fmt.Sprintf(policyYAML, list))
	if err != nil {
		return nil, err
	}
	return &scene{world: w, milter: milter, asPort: port}, nil
}

// A step is a message, and what should become of it.
type step struct {
	what    string
	from    string
	author  string   // the From field; "" for from
	rcpts   []string // nil for bob
	key     string   // "own": the address's key now
	fields  string   // further header fields
	before  func() error
	result  string
	action  string
	cached  bool
	outcome string // isDelivered, isHeld or the reply
}

func (s *scene) steps() []step {
	var old string
	return []step{
		{what: "valid key", from: "alice@" + sender, key: "own", result: "pass", action: "accept", outcome: isDelivered},
		{what: "the same again", from: "alice@" + sender, key: "own", result: "pass", action: "accept", cached: true, outcome: isDelivered},
		{what: "wrong key", from: "alice@" + sender, key: "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", result: "fail", action: "reject",
			outcome: "550 5.7.1 Sender address not authenticated: AuthKey invalid"},
		{what: "no key", from: "alice@" + sender, result: "nokey", action: "mark", outcome: isDelivered},
		{what: "no key, domain requires one", from: "alice@" + strict, result: "fail", action: "reject",
			outcome: "550 5.7.1 Sender address not authenticated: AuthKey missing"},
		{what: "domain without AS", from: "alice@" + absent, key: "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", result: "none", action: "accept", outcome: isDelivered},
		{what: "AS down", from: "alice@" + down, key: "own", result: "temperror", action: "tempfail",
			outcome: "451 4.7.1 AuthKey cannot be verified now, try again later"},
		{what: "broken record", from: "alice@" + broken, key: "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", result: "permerror", action: "quarantine", outcome: isHeld},
		{what: "forged Authentication-Results", from: "alice@" + sender, fields: "Authentication-Results: mx.test; x-authkey=pass\r\n",
			result: "nokey", action: "mark", outcome: isDelivered},
		{what: "key rotated: the new one", from: "alice@" + sender, key: "own", result: "pass", action: "accept", outcome: isDelivered,
			before: func() (err error) {
				if old, err = s.world.Key("alice@" + sender); err != nil {
					return err
				}
				return s.world.Revoke(sender, "alice")
			}},
		{what: "key rotated: the old one", from: "alice@" + sender, key: "old", result: "fail", action: "reject",
			outcome: "550 5.7.1 Sender address not authenticated: AuthKey invalid",
			before:  func() error { s.keys = append(s.keys, old); return nil }},
		{what: "another's From, own key", from: "alice@" + sender, author: "ceo@" + strict, key: "own", result: "pass", action: "reject", cached: true,
			outcome: "550 5.7.1 Sender address not authenticated: AuthKey missing"},
		{what: "another's From, domain without AS", from: "alice@" + sender, author: "news@" + absent, key: "own", result: "pass", action: "accept",
			cached: true, outcome: isDelivered},
		{what: "wrong key, to six who differ", from: "alice@" + sender, author: "news@" + absent, rcpts: six, key: "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567",
			result: "fail", action: "mark", outcome: isDelivered},
	}
}

// six are recipients with six different preferences.
var six = []string{"accept@rcpt.test", "mark@rcpt.test", "discard@rcpt.test",
	"discard-notify@rcpt.test", "reject@rcpt.test", "reject-notify@rcpt.test"}

// A row is what became of a step's message.
type row struct {
	step
	gotResult, gotAction, gotOutcome string
	gotCached                        bool
	milliseconds                     string
	keyGone                          bool
	copies                           []string // the mailboxes that have it
	ours                             string   // our Authentication-Results, as delivered
	faults                           []string
}

func (s *scene) sendAll(ctx context.Context, mx mta) ([]row, error) {
	var rows []row
	for i, st := range s.steps() {
		r, err := s.send(ctx, mx, st, fmt.Sprintf("demo %d", i+1))
		if err != nil {
			return rows, fmt.Errorf("%s: %w", st.what, err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func (s *scene) send(ctx context.Context, mx mta, st step, subject string) (row, error) {
	r := row{step: st}
	if st.before != nil {
		if err := st.before(); err != nil {
			return r, err
		}
	}
	key, err := s.keyOf(st)
	if err != nil {
		return r, err
	}
	author, rcpts := st.author, st.rcpts
	if author == "" {
		author = st.from
	}
	if rcpts == nil {
		rcpts = []string{recipient}
	}
	logged := len(s.milter.Log())
	found, err := mx.deliver(ctx, newMessage(st.from, author, rcpts, subject, st.fields+keyField(key)))
	if err != nil {
		return r, err
	}
	r.gotOutcome, r.copies = found.outcome, found.rcpts
	fields, err := messageLine(ctx, s.milter, logged)
	if err != nil {
		return r, err
	}
	r.gotResult, r.gotAction, r.gotCached = fields["result"], fields["action"], fields["cached"] == "true"
	r.milliseconds = fields["total_ms"]
	r.inspect(found, s.keys, s.milter.Log()[logged:])
	return r, nil
}

// keyOf is the key to send with a step, and remembers it.
func (s *scene) keyOf(st step) (string, error) {
	switch st.key {
	case "":
		return "", nil
	case "own":
		key, err := s.world.Key(st.from)
		if err != nil {
			return "", err
		}
		s.keys = append(s.keys, key)
		return key, nil
	case "old":
		return s.keys[len(s.keys)-1], nil
	}
	s.keys = append(s.keys, st.key)
	return st.key, nil
}

// inspect reads the bytes that were delivered or held, and compares everything
// with what should have become of the message.
func (r *row) inspect(found found, keys []string, log string) {
	expect := func(what, got, want string) {
		if got != want {
			r.faults = append(r.faults, fmt.Sprintf("%s is %q, should be %q", what, got, want))
		}
	}
	expect("result", r.gotResult, r.result)
	expect("action", r.gotAction, r.action)
	expect("cached", fmt.Sprint(r.gotCached), fmt.Sprint(r.cached))
	expect("outcome", r.gotOutcome, r.outcome)

	r.keyGone = !hasKey(string(found.bytes), keys) && !containsKey(log, keys)
	if !r.keyGone {
		r.faults = append(r.faults, "a key survived")
	}
	if len(found.bytes) == 0 {
		return
	}
	lower := strings.ToLower(string(found.bytes))
	if n := strings.Count(lower, "authentication-results:"); n != 1 {
		r.faults = append(r.faults, fmt.Sprintf("%d Authentication-Results, should be ours alone", n))
	}
	// Where some accept it, those who want it marked are told apart by their address.
	if marked := strings.Contains(lower, "x-spam-flag: yes"); marked != (r.action == "mark" && r.rcpts == nil) {
		r.faults = append(r.faults, fmt.Sprintf("marked: %v", marked))
	}
	r.ours = fieldOf(string(found.bytes), "Authentication-Results")
}
