// Package policy turns the result of a verification, the recipients of a
// message and the wishes of administrator and recipients into a Plan: what
// happens to the message, recipient by recipient, and what the SMTP client hears.
//
// For each recipient the most specific layer decides: the recipient's own
// preference, a rule for the address, for its domain, for the sender, then the
// default; the floor and, where it is enforced, the result of the From field can
// only make that severer. A message that several recipients share gets one
// verdict and one header, so that their actions are then merged: only a recipient
// who wanted the message discarded may lose it unannounced.
//
// The package is pure: no clock, no socket, no state from one message to the
// next, so that the same input gives the same Plan, and a table test can say so.
// Looking preferences up, rate limits and the texts of notices are others' work;
// what they found comes in with the Envelope. Mailboxes are compared in folded
// form (wire.Fold), which the caller supplies.
package policy
