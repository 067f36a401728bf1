package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// conclusion is what the demo shows, and what it does not.
const conclusion = `
What this does:
  + Where failures are refused, nobody sends as alice without a key of hers: no stranger,
    and no colleague with a login of his own, through a's server or around it.
  + There is nobody in between: a's milter makes keys, b's asks a's server about them, and
    b's mailboxes never see one.
What it does not:
  - A key is a bearer token. Whoever sees one, on a mail server on the way or in a mailbox
    where nobody removes it, is as good as its owner until it ends (six days at most by
    default) or is revoked and recipients may no longer rely on what they were told
    (ttl: an hour by default, here %s).
  - A forwarder that takes part removes the key. The next server sees mail of a domain that
    says req=yes without one, and may refuse it.
  - A domain's server vouches for whatever it likes in its own domain, and for nothing
    elsewhere. Whoever steals its secret makes keys of every address there.
  - It says which address sends, not who is meant nor what is written: mallory may write
    anything as mallory, with the name of alice before his address too (not her address).
`

// tell prints what was done with each message, and returns an error that counts what is
// wrong.
func (s *exchange) tell(w io.Writer, events []event) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nWHAT WAS SENT\tSENDER'S MILTER\tRECIPIENT'S\tWHAT BECAME OF IT")
	var faults []string
	for _, e := range events {
		note := e.gotNote
		if e.home == nil {
			note = "(passed by)"
		}
		// Every refusal begins with the same words.
		outcome := strings.Replace(e.gotOutcome, "5.7.1 Sender address not authenticated:", "…", 1)
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", e.what, note, e.gotVerdict, outcome+e.more)
		for _, fault := range e.faults {
			faults = append(faults, e.what+": "+fault)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nBob's copy of the first says\nAuthentication-Results: %s\n", fieldOf(events[0].copy, "Authentication-Results"))
	left, err := s.leftovers()
	if err != nil {
		return err
	}
	faults = append(faults, left.withKey(s.keys)...)
	fmt.Fprintf(w, conclusion, answerTTL)
	for _, fault := range faults {
		fmt.Fprintf(w, "NOT AS IT SHOULD BE: %s\n", fault)
	}
	if len(faults) > 0 {
		return fmt.Errorf("%d things are not as they should be", len(faults))
	}
	fmt.Fprintf(w, "\nAll %d steps as they should be, and none of the %d keys survived: looked for in all %d delivered messages and %d logs.\n",
		len(events), len(s.keys), left.messages, len(left.texts)-left.messages)
	return nil
}

// leftovers are the texts in which no key may be.
type leftovers struct {
	texts    map[string]string // by what they are
	messages int               // how many of them are messages
}

// leftovers collects what was delivered and what was logged at both sites.
func (s *exchange) leftovers() (leftovers, error) {
	left := leftovers{texts: make(map[string]string)}
	for _, o := range []*site{s.a, s.b} {
		all, err := o.mta.delivered()
		if err != nil {
			return left, err
		}
		for i, m := range all {
			left.texts[fmt.Sprintf("message %d for %s", i+1, m.Recipient)] = string(m.Raw)
		}
	}
	told, err := s.world.Told.Deliveries()
	if err != nil {
		return left, err
	}
	for i, m := range told {
		left.texts[fmt.Sprintf("notice %d to %s", i+1, m.Recipient)] = string(m.Raw)
	}
	left.messages = len(left.texts)
	for _, o := range []*site{s.a, s.b} {
		for name, log := range o.logs() {
			if log != "" { // the built-in front has none
				left.texts[name] = log
			}
		}
	}
	return left, nil
}

// withKey says which texts have one of the keys.
func (l leftovers) withKey(keys []string) []string {
	var faults []string
	for name, text := range l.texts {
		if containsKey(text, keys) {
			faults = append(faults, "a key is in "+name)
		}
	}
	slices.Sort(faults)
	return faults
}

// hasKey tells whether a delivered message has one of the keys, or a field for one.
func hasKey(message string, keys []string) bool {
	return strings.Contains(strings.ToLower(message), "x-auth-key") || containsKey(message, keys)
}

func containsKey(text string, keys []string) bool {
	return slices.ContainsFunc(keys, func(key string) bool { return strings.Contains(text, key) })
}
