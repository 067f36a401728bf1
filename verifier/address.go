package verifier

import "github.com/authkey/authkey/internal/wire"

// An Address is a mailbox in the protocol's canonical form (docs/protocol.md section 3):
// the domain in lower-case A-labels, needless quoting of the local part undone. The zero
// Address is none. Addresses may be compared with ==.
//
// Address.String returns the percent-encoded form that is sent to an AS, Address.Mailbox the
// form that people write, Address.Domain the domain. Address.IsDomain reports that it stands
// for a domain alone (DomainAddress), Address.IsZero that it is none.
type Address = wire.Address

// ParseAddress makes an Address of a mailbox, as MAIL FROM or a From field has it without
// angle brackets. Where it fails, no AS can vouch for the mailbox; Unaddressable turns the
// error into the Result.
func ParseAddress(mailbox string) (Address, error) { return wire.ParseAddress(mailbox) }

// DomainAddress makes an Address that stands for the domain of a mailbox alone. It is for
// mailboxes which are too long for ParseAddress: they can have no AuthKey, but their domain
// may require one.
func DomainAddress(mailbox string) (Address, error) { return wire.DomainAddress(mailbox) }

// A Key is an AuthKey. Anybody who sees an AuthKey can use it. Therefore a Key prints as a
// fixed text with every verb, in JSON and in slog, and only Key.Reveal returns its octets.
// The zero Key is none (Key.IsZero). A Key for which Key.Bad reports true stands for header
// fields that no AS can have issued. Keys are compared with Key.Equal.
type Key = wire.Key

// ParseKey makes a Key of one AuthKey: 1 to 512 octets of 0x21 to 0x7E. The error does not
// repeat it.
func ParseKey(s string) (Key, error) { return wire.ParseKey(s) }

// JoinKeys makes one Key of the values of all X-Auth-Key fields of a message (docs/protocol.md
// section 5): white space around a value and empty values do not count, the same value twice
// counts once. No value makes the zero Key. Two different values, or one that no AS can
// have issued, make a bad Key, with which Verify gives Fail.
func JoinKeys(values ...string) Key { return wire.JoinKeys(values...) }

// A Server is where an AS listens: Host is a domain name in A-labels or an IP address
// without brackets, Port its TCP port, and TLS says whether it is to be asked over TLS.
// Server.String returns it as a record has it.
type Server = wire.Server

// A Record is one AS record of a domain (docs/protocol.md section 1): a Server, with TLS if
// the record says tls=yes, its priority Pri (lower is tried first), and Required if it says
// req=yes. Record.String returns it as it is published.
type Record = wire.Record

// A Refusal is a TXT record that begins as an AS record and is not used. Why wraps
// ErrMalformed or ErrDowngrade, or says which rule about what may be dialled it breaks.
// Text is the record, cut; it may hold any octets.
type Refusal = wire.Refusal

// Why a Refusal is one.
var (
	// ErrMalformed says that the record breaks the grammar.
	ErrMalformed = wire.ErrMalformed
	// ErrDowngrade says that the record offers clear text, while another one of the domain
	// says tls=yes.
	ErrDowngrade = wire.ErrDowngrade
)

// A NearMiss is a TXT record that was probably meant to be an AS record and cannot be used
// as one. Text is the record, cut. Why says what is wrong with it, as the end of the
// sentence "looks like an AS record, but …". Right is the record that was probably meant.
type NearMiss = wire.NearMiss
