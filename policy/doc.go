// Package policy turns the result of a verification, and what administrator and recipients
// chose, into a Plan: what is done with the message for each recipient, and what the SMTP
// client is answered.
//
// For each recipient the most specific layer decides: the recipient's own preference, a
// rule for the address, for its domain, for the sender, then the default. Two more layers
// can only replace that by a stricter action: the floor and, where it is enforced, the
// result of the From field. All recipients of a message share one header and one answer, so
// their actions are then merged (docs/policy.md). The merged Plan loses a message without
// telling anybody only for a recipient who chose to have it discarded.
//
// The package is pure: no clock, no network, no state from one message to the next. The
// same input gives the same Plan. The caller looks up preferences and passes them in as an
// Envelope; rate limits and the texts of notices are the caller's too. Mailboxes are compared
// in the form that Fold makes.
package policy
