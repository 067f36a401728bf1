package milter

import (
	"fmt"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/policy"
)

// An outcome is what is to be done with one message: what the policy said, or a
// reply of ours that goes before it.
type outcome struct {
	results
	env  policy.Envelope
	plan policy.Plan
	own  policy.Reply // not zero where the policy had nothing to say

	attachment Attachment // of our own users' mail

	err         error // why a notice could not be handed over
	prefsFailed int   // lookups of preferences that failed
	prefsErr    error // and the first one's error
}

// refuse answers with a reply of ours and changes nothing.
func (o outcome) refuse(r policy.Reply) outcome {
	o.own = r
	return o
}

func (o outcome) reply() policy.Reply {
	if !o.own.IsZero() {
		return o.own
	}
	return o.plan.Reply
}

func (o outcome) response() *gomilter.Response {
	reply := o.reply()
	if reply.IsZero() && o.discards() {
		return gomilter.RespDiscard
	}
	return response(reply)
}

func (o outcome) discards() bool {
	return o.plan.Action == policy.Discard || o.plan.Action == policy.DiscardNotify
}

// delivers reports whether anything of the message is left for the MTA to keep,
// so that it has to be changed.
func (o outcome) delivers() bool { return o.reply().IsZero() && !o.discards() }

// deletions counts the fields to delete from a message, including those that
// only a marked message loses.
func (m *message) deletions(mark bool) int {
	var buf [maxRemovals]removal
	n := 0
	for _, d := range m.removals(buf[:0], mark) {
		n += d.count
	}
	return n
}

// A removal is the deletion of the fields of one name.
type removal struct {
	name  string
	count int
	which []int // their indexes, 1-based, among the fields of that name; nil: all of them
}

// maxRemovals is how many names removals can have.
const maxRemovals = 5

// removals appends to list what has to go, by whose mail it is.
func (m *message) removals(list []removal, mark bool) []removal {
	if m.losesKeys() {
		list = append(list, removal{keyField, m.counts.key, nil})
	}
	// What only we write, our own users and relays do not.
	list = append(list,
		removal{newKeyField, m.counts.newKey, nil},
		removal{quarantineField, m.counts.quarantine, nil},
		removal{authResField, len(m.authRes), m.authRes})
	if mark && m.class == inbound {
		list = append(list, removal{m.engine.Settings.MarkHeader, m.counts.mark, nil})
	}
	return list
}

// apply tells the MTA every change. Deletions come first, and go from the last
// field of a name to the first: Postfix renumbers the rest after each one.
func (o outcome) apply(msg *message, m gomilter.Modifier) error {
	if !o.delivers() {
		return nil
	}
	mark := o.plan.Mark
	var buf [maxRemovals]removal
	for _, r := range msg.removals(buf[:0], mark) {
		for i := r.count - 1; i >= 0; i-- {
			index := i + 1
			if r.which != nil {
				index = r.which[i]
			}
			if err := m.ChangeHeader(index, r.name, ""); err != nil {
				return fmt.Errorf("delete %s: %w", r.name, err)
			}
		}
	}
	for _, value := range o.plan.QuarantineFields {
		if err := m.InsertHeader(0, quarantineField, value); err != nil {
			return fmt.Errorf("insert %s: %w", quarantineField, err)
		}
	}
	if mark {
		if err := m.InsertHeader(0, msg.engine.Settings.MarkHeader, msg.engine.Settings.MarkValue); err != nil {
			return fmt.Errorf("mark: %w", err)
		}
	}
	if field := o.authRes(msg); field != "" {
		if err := m.InsertHeader(0, authResField, field); err != nil {
			return fmt.Errorf("insert %s: %w", authResField, err)
		}
	}
	if err := o.attachment.apply(m); err != nil {
		return err
	}
	if err := o.applyRecipients(msg, m); err != nil {
		return err
	}
	if o.plan.Hold {
		if err := m.Quarantine(o.quarantineReason()); err != nil {
			return fmt.Errorf("quarantine: %w", err)
		}
	}
	return nil
}

// authRes is the value of our Authentication-Results, "" for none.
func (o outcome) authRes(msg *message) string {
	return formatAuthRes(msg.authID,
		authResult{Result: o.envelope, property: "smtp.mailfrom", address: msg.address},
		authResult{Result: o.from.Result, property: "header.from", address: o.from.address})
}

// applyRecipients takes recipients off the envelope and puts others on it.
func (o outcome) applyRecipients(msg *message, m gomilter.Modifier) error {
	for _, r := range o.plan.Recipients {
		if r.Disposition == policy.Keep {
			continue
		}
		if err := m.DeleteRecipient(r.Address); err != nil {
			return fmt.Errorf("delete recipient: %w", err)
		}
		// Postfix knows some recipients by their plain form alone. What an MTA does not
		// know it ignores.
		if plain, ok := msg.plain[r.Address]; ok {
			if err := m.DeleteRecipient(plain); err != nil {
				return fmt.Errorf("delete recipient: %w", err)
			}
		}
	}
	for _, added := range o.plan.Added {
		if err := m.AddRecipient(added, ""); err != nil {
			return fmt.Errorf("add recipient: %w", err)
		}
	}
	return nil
}

// quarantineReason is what the MTA shows beside the held message.
func (o outcome) quarantineReason() string {
	res := o.envelope
	if o.plan.By == policy.ByFrom {
		res = o.from.Result
	}
	reason := "authkey: " + string(res.Status)
	if res.Reason != "" {
		reason += " (" + string(res.Reason) + ")"
	}
	return reason
}
