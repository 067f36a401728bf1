package milter

import "github.com/authkey/authkey/verifier"

// The values of reason= that no verification gives. What each means is in
// internal/reasons.
const (
	// skipped: the message, or its From field, is not checked.
	reasonSubmission verifier.Reason = "submission"
	reasonExempt     verifier.Reason = "exempt"
	reasonTrusted    verifier.Reason = "trusted" // from.trusted

	// Of the From field.
	reasonBadFrom   verifier.Reason = "bad-from"   // permerror: no From field, or no address in it
	reasonFromLimit verifier.Reason = "from-limit" // fail: more octets, fields or addresses than normal mail has

	// Of our own replies.
	reasonFilterError       verifier.Reason = "filter-error"
	reasonShutdown          verifier.Reason = "shutdown"
	reasonTooManyRecipients verifier.Reason = "too-many-recipients"
	reasonTooManyFields     verifier.Reason = "too-many-fields"
	reasonNotHandedOver     verifier.Reason = "not-handed-over" // a DSN or notice
	reasonNoKeyNow          verifier.Reason = "no-key-now"
)

// A note is a value of note=: what was done with a message beside or instead of its action.
type note string

// noteKeyAttached is that of our own user's mail that got its key. Where it got none, the
// Attacher says why; all other notes are the policy's.
const noteKeyAttached note = "key-attached"
