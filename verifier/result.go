package verifier

import (
	"errors"
	"time"

	"github.com/authkey/authkey/internal/wire"
)

// A Status is the result of a verification in one word (docs/protocol.md section 5).
type Status string

// The results of docs/protocol.md section 5. Verify never gives Skipped.
const (
	Pass      Status = "pass"      // the AS, or the cache on its word, says the key is the address's
	Fail      Status = "fail"      // the key is wrong, or the domain requires one and there is none
	NoKey     Status = "nokey"     // the domain publishes an AS, the message has no key
	None      Status = "none"      // the domain publishes no AS, or the address can have none
	TempError Status = "temperror" // DNS or every AS could not answer now
	PermError Status = "permerror" // the domain's records are unusable or point where we refuse to go
	Skipped   Status = "skipped"   // not checked: exempt client, own submission, null sender
)

// Statuses lists every Status, in the order in which documents list them.
func Statuses() []Status {
	return []Status{Pass, Fail, NoKey, None, TempError, PermError, Skipped}
}

// A Reason says in one hyphenated token why a Status is what it is. It goes into the
// milter's log and into Authentication-Results; docs/reasons.md says what there is to do.
type Reason string

// Reasons, by the Status they go with. A Pass and a plain NoKey have none.
const (
	ReasonInvalidKey Reason = "invalid-key" // fail: the AS said INVALIDKEY
	ReasonBadKey     Reason = "bad-key"     // fail: no AS could have issued this key
	ReasonRequired   Reason = "required"    // fail: no key, and the domain says req=yes

	// ReasonKeyIsEnvelopes: nokey or fail, which the milter, not Verify, gives a From field:
	// the message has a key, but it is the envelope sender's.
	ReasonKeyIsEnvelopes Reason = "key-is-envelope-senders"
	// ReasonKeyIsAmbiguous: the same, and the From field names addresses of several
	// domains, so that nobody can say whose a key is.
	ReasonKeyIsAmbiguous Reason = "key-is-ambiguous"

	ReasonNoAS          Reason = "no-as"          // none: the domain publishes no AS record
	ReasonNoDomain      Reason = "no-domain"      // none: the address has no domain
	ReasonDomainLiteral Reason = "domain-literal" // none: the domain is an address literal
	ReasonBadDomain     Reason = "bad-domain"     // none: the domain cannot be a host name
	ReasonBadAddress    Reason = "bad-address"    // none: the address cannot be put in canonical form

	ReasonDNSTimeout  Reason = "dns-timeout"    // temperror: no name server answered in time
	ReasonDNSFailure  Reason = "dns-failure"    // temperror: every name server failed, refused, or answered nonsense
	ReasonASTimeout   Reason = "as-timeout"     // temperror: an AS did not answer in time
	ReasonASRefused   Reason = "as-refused"     // temperror: an AS could not be reached
	ReasonASTLS       Reason = "as-tls"         // temperror: the TLS handshake or the certificate failed
	ReasonASViolation Reason = "as-violation"   // temperror: an AS broke the protocol
	ReasonASTempFail  Reason = "as-tempfail"    // temperror: an AS said TEMPFAIL
	ReasonASBusy      Reason = "as-busy"        // temperror: an AS said ERROR busy
	ReasonASLeftAlone Reason = "as-left-alone"  // temperror: not asked, it failed too often just now
	ReasonDialBudget  Reason = "dial-budget"    // temperror: not asked, too many new connections just now
	ReasonCancelled   Reason = "cancelled"      // temperror: the caller stopped waiting, or the Verifier is closed
	ReasonBroken      Reason = "internal-error" // temperror: the Verifier panicked, which says nothing of the key
	ReasonOverload    Reason = "overload"       // temperror: not asked, too many verifications are under way
	ReasonASRecord    Reason = "as-record"      // permerror: the domain's AS records are malformed
	ReasonASNoHost    Reason = "as-no-host"     // permerror: the AS's name does not exist or has no address
	ReasonASForbidden Reason = "as-forbidden"   // permerror: the AS's address or port is one we refuse to dial
	ReasonASClearText Reason = "as-clear-text"  // permerror: the AS offers no TLS, and Options.RequireTLS is set
	ReasonASNotServed Reason = "as-not-served"  // permerror: the AS does not serve the domain
	ReasonASSyntax    Reason = "as-syntax"      // permerror: the AS could not read our question

	ReasonNullSender Reason = "null-sender" // skipped: there is no address to verify
)

// A Query asks whether Key is Address's AuthKey.
type Query struct {
	Address Address // the zero Address gives None
	Key     Key     // the zero Key asks what its absence means
}

// A Result is the answer to a Query. Every outcome is data: a network failure is a
// TempError and not an error.
type Result struct {
	Status Status
	Reason Reason // "" for a Pass and a plain NoKey

	// Server is the AS that gave the answer, of a Pass or Fail; or the last one that failed,
	// of a TempError or PermError. It is host:port, and empty where none was asked.
	Server string
	// Cached, of a Pass only: answered from the key cache, nobody was asked. Required,
	// Stale, AD and the two times are zero then.
	Cached bool
	// TTL, of a Pass only: how much longer it may be relied on without asking again.
	TTL time.Duration

	// What DNS says of the domain, as far as it is known, whatever the Status.
	Required bool // the domain says req=yes
	Stale    bool // its records are older than their TTL, because DNS fails
	AD       bool // the name server says that DNSSEC validated the records

	DNSTime time.Duration // spent on finding the AS
	ASTime  time.Duration // spent on asking, over all AS that were asked
}

// Unaddressable is the Result for a mailbox which ParseAddress refused with err: Skipped
// for the null sender, None for any other. No AS can vouch for it, and DNS is not asked.
func Unaddressable(err error) Result {
	r := Result{Status: None, Reason: ReasonBadAddress}
	switch {
	case errors.Is(err, wire.ErrNullSender):
		return Result{Status: Skipped, Reason: ReasonNullSender}
	case errors.Is(err, wire.ErrNoDomain):
		r.Reason = ReasonNoDomain
	case errors.Is(err, wire.ErrDomainLiteral):
		r.Reason = ReasonDomainLiteral
	case errors.Is(err, wire.ErrDomain):
		r.Reason = ReasonBadDomain
	}
	return r
}
