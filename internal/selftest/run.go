package selftest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/authkey/authkey/internal/front"
	"github.com/authkey/authkey/internal/loopback"
	"github.com/authkey/authkey/milter"
	"github.com/authkey/authkey/policy"
)

// A Subject is the milter to be tested.
type Subject struct {
	// Socket is the path of the unix socket on which it listens.
	Socket string
	// Engine is the configuration in force, whose policy says what is to become of
	// the messages. The milter's own may be the same one.
	Engine *milter.Engine
	// Recipients each get every message.
	Recipients []string
}

// strangers are documentation addresses (RFC 5737, RFC 3849), which no host has.
var strangers = []netip.Addr{
	netip.MustParseAddr("192.0.2.25"), netip.MustParseAddr("198.51.100.25"),
	netip.MustParseAddr("203.0.113.25"), netip.MustParseAddr("2001:db8::25"),
}

// chooseClient returns the address of an SMTP client whose mail is verified, and
// whose From fields are, if there is any such. ok is false where the configuration
// verifies nobody's.
func chooseClient(s *milter.Settings) (client netip.Addr, ok bool) {
	for _, addr := range strangers {
		switch {
		case contains(s.ExemptNetworks, addr), contains(s.Submission.Networks, addr):
		case !contains(s.FromTrusted.Clients, addr):
			return addr, true
		case !ok:
			client, ok = addr, true
		}
	}
	return client, ok
}

func contains(networks milter.Networks, addr netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(addr) })
}

// Run sends every message to every recipient and reports what was done with them. An error
// means that this could not be found out; what is not as it must be is in the Report. The
// milter must use the DNS, AS and SMTP server of the World, and log to it.
func (w *World) Run(ctx context.Context, subject Subject) (*Report, error) {
	settings := &subject.Engine.Settings
	client, ok := chooseClient(settings)
	if !ok {
		return &Report{Messages: []Row{}, Faults: []string{
			fmt.Sprintf("the configuration verifies nobody's mail: exempt.networks and submission.networks hold even %s", join(strangers))}}, nil
	}
	mta, err := front.Dial(ctx, "unix", subject.Socket, mtaName)
	if err != nil {
		return nil, err
	}
	r := runner{world: w, engine: subject.Engine, mta: mta, client: client, report: &Report{Client: client.String()}}
	for n, rcpt := range subject.Recipients {
		err = r.recipient(ctx, n+1, rcpt)
		if err != nil {
			break
		}
	}
	if err = errors.Join(err, mta.Close()); err != nil {
		return nil, err
	}
	// What comes late counts too.
	if r.leaks(w.log.take()) {
		r.report.Faults = append(r.report.Faults, "a key is in the log")
	}
	return r.report, nil
}

func join(addrs []netip.Addr) string {
	var texts []string
	for _, a := range addrs {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ", ")
}

// A runner sends the messages of one Run.
type runner struct {
	world  *World
	engine *milter.Engine
	mta    *front.Front
	client netip.Addr
	report *Report
	keys   []string // every one that was sent
}

func (r *runner) recipient(ctx context.Context, n int, address string) error {
	scenes, err := r.world.scenes(n)
	if err != nil {
		return err
	}
	for i := range scenes {
		row, err := r.send(ctx, &scenes[i], fmt.Sprintf("selftest.%d.%d", n, i+1), address)
		if err != nil {
			return fmt.Errorf("%s: %w", scenes[i].what, err)
		}
		r.report.Messages = append(r.report.Messages, row)
	}
	return nil
}

// An observation is all that can be seen of one message.
type observation struct {
	front.Outcome
	notices []loopback.Mail
	log     string
	asked   uint64
}

// send sends a scene's message and checks what became of it.
func (r *runner) send(ctx context.Context, s *scene, id, recipient string) (Row, error) {
	const body = "This message tests authkey-milter. It goes nowhere.\r\n"
	settings := &r.engine.Settings
	fields, keys := s.header(id, recipient, settings)
	r.keys = append(r.keys, keys...)
	m := front.Message{QueueID: id, Client: r.client, Sender: s.sender, Recipients: []string{recipient}, Body: body}
	for _, f := range fields {
		m.Header = append(m.Header, f.Field)
	}
	asked := r.world.server.asked()
	outcome, err := r.mta.Send(m)
	if err != nil {
		return Row{}, err
	}
	seen := observation{outcome, r.world.notices.take(), r.world.log.take(), r.world.server.asked() - asked}
	c := checker{runner: r, scene: s, seen: seen, sent: m, fields: fields}
	c.check(ctx, id, recipient)
	return c.row, nil
}

// plan is what the policy says of a message with these results.
func (r *runner) plan(ctx context.Context, s *scene, recipient string, envelope, from result) policy.Plan {
	rcpts := []policy.Recipient{{Address: recipient, Folded: policy.Fold(recipient)}}
	if r.engine.Preferences != nil {
		// Where it fails the plan says so, and the milter's has to say the same.
		_, _ = r.engine.Preferences.Fill(ctx, rcpts)
	}
	plan, _ := r.engine.Policy.Explain(policy.Envelope{
		Sender: policy.Fold(s.sender), Recipients: rcpts, From: from.Result, DSNAllowed: true,
		Abilities: policy.Abilities{Quarantine: true, DeleteRecipient: true, AddRecipient: true},
	}, envelope.Result)
	return plan
}
