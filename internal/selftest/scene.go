package selftest

import (
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/authkey/authkey/internal/front"
	"github.com/authkey/authkey/milter"
	"github.com/authkey/authkey/verifier"
)

// mtaName is what the MTA in front calls itself: its {j}.
const mtaName = "mx.selftest.test"

// A finding is what a verification has to find.
type finding struct {
	status   verifier.Status
	reasons  []verifier.Reason // any one of these; empty: none
	cached   bool
	required bool
}

// A scene is one message, and what there is to be found out about it.
type scene struct {
	what   string
	sender string // "" is the null sender
	key    string // its text; "" where the message has none
	from   string // the address of the From field; "" is the sender's
	forged bool   // it has the fields that only filters write

	envelope finding
	fromIs   *finding // of the From field; nil: the same as the envelope's
	asks     uint64   // how many questions the Authentication Server is asked
}

func (s *scene) fromAddress() string {
	if s.from != "" {
		return s.from
	}
	return s.sender
}

// fromFinding is what has to be found out about the From field.
func (s *scene) fromFinding() finding {
	if s.fromIs != nil {
		return *s.fromIs
	}
	return s.envelope
}

// scenes are the messages to one recipient, the n-th. The senders' local parts
// differ from those of the others, so that nothing is in the cache already.
func (w *World) scenes(n int) ([]scene, error) {
	alice, mallory := fmt.Sprintf("alice%d@", n), fmt.Sprintf("mallory%d@", n)
	good, err := w.server.key(alice + senderDomain)
	if err != nil {
		return nil, err
	}
	mallorys, err := w.server.key(mallory + otherDomain)
	if err != nil {
		return nil, err
	}
	because := func(reasons ...verifier.Reason) []verifier.Reason { return reasons }
	unreachable := because(verifier.ReasonASRefused, verifier.ReasonASLeftAlone)
	return []scene{
		{what: "valid key", sender: alice + senderDomain, key: good, asks: 1,
			envelope: finding{status: verifier.Pass}},
		{what: "valid key again", sender: alice + senderDomain, key: good,
			envelope: finding{status: verifier.Pass, cached: true}},
		{what: "wrong key", sender: alice + senderDomain, key: rand.Text(), asks: 1,
			envelope: finding{status: verifier.Fail, reasons: because(verifier.ReasonInvalidKey)}},
		{what: "no key where one is required", sender: alice + strictDomain,
			envelope: finding{status: verifier.Fail, reasons: because(verifier.ReasonRequired), required: true}},
		{what: "no key", sender: alice + senderDomain,
			envelope: finding{status: verifier.NoKey}},
		{what: "domain without AS", sender: alice + plainDomain, key: rand.Text(),
			envelope: finding{status: verifier.None, reasons: because(verifier.ReasonNoAS)}},
		{what: "AS is down", sender: alice + downDomain, key: rand.Text(),
			envelope: finding{status: verifier.TempError, reasons: unreachable}},
		{what: "AS is down, key required", sender: alice + downStrict, key: rand.Text(),
			envelope: finding{status: verifier.TempError, reasons: unreachable, required: true}},
		{what: "unusable record", sender: alice + brokenDomain, key: rand.Text(),
			envelope: finding{status: verifier.PermError, reasons: because(verifier.ReasonASRecord)}},
		{what: "null sender", key: rand.Text(), from: "MAILER-DAEMON@" + senderDomain,
			envelope: finding{status: verifier.Skipped, reasons: because(verifier.ReasonNullSender)}},
		{what: "forged From", sender: mallory + otherDomain, key: mallorys, from: alice + strictDomain, asks: 1,
			envelope: finding{status: verifier.Pass},
			fromIs:   &finding{status: verifier.Fail, reasons: because(verifier.ReasonKeyIsEnvelopes), required: true}},
		{what: "forged results", sender: alice + senderDomain, forged: true,
			envelope: finding{status: verifier.NoKey}},
	}, nil
}

// The fields that a client may not write to us.
const (
	keyField        = "X-Auth-Key"
	newKeyField     = "X-New-Auth-Key"
	quarantineField = "X-Authkey-Quarantine"
	authResField    = "Authentication-Results"
)

// A sentField is a field of a message, and whether it is to be removed.
type sentField struct {
	front.Field
	goes bool
}

// header writes the header of a scene's message. Its key is at the beginning and at the end,
// which is the same as once.
func (s *scene) header(id, recipient string, settings *milter.Settings) (fields []sentField, keys []string) {
	stays := func(name, value string) {
		fields = append(fields, sentField{front.Field{Name: name, Value: value}, false})
	}
	goes := func(name, value string) {
		fields = append(fields, sentField{front.Field{Name: name, Value: value}, true})
	}
	if s.key != "" {
		keys = append(keys, s.key)
		goes(keyField, s.key)
	}
	if s.forged {
		for _, own := range ownIDs(settings) {
			goes(authResField, own+"; x-authkey=pass smtp.mailfrom="+s.sender)
			goes(authResField, own+" (really)\r\n\t; X-AuthKey (yes) = pass")
		}
		goes(authResField, "elsewhere.test; x-authkey=pass smtp.mailfrom="+s.sender)
		stays(authResField, "elsewhere.test; spf=pass smtp.mailfrom="+senderDomain)
		secret := rand.Text()
		keys = append(keys, secret)
		goes(newKeyField, secret)
		goes(quarantineField, "somebody@"+senderDomain+"; fail (invalid-key)")
	}
	stays("Date", time.Now().Format(time.RFC1123Z))
	stays("From", "Alice <"+s.fromAddress()+">")
	stays("To", recipient)
	stays("Message-ID", "<"+id+"@"+senderDomain+">")
	stays("Subject", "authkey-milter selftest: "+s.what)
	stays(settings.MarkHeader, "NO, says the sender")
	if s.key != "" {
		goes("x-auth-KEY", "\r\n\t"+s.key)
	}
	return fields, keys
}

// ownIDs are the authserv-ids under which only our own filters may write results.
func ownIDs(settings *milter.Settings) []string {
	ids := []string{settings.AuthservID}
	if settings.AuthservID == "" {
		ids = []string{mtaName, settings.HostName}
	}
	return append(slices.Clip(ids), settings.TrustedIDs...)
}
