// Package notify tells people about mail that a policy did not deliver: senders
// by a delivery status notification (DSN), recipients by a notice.
//
// A DSN is a multipart/report of RFC 3464 and RFC 6522, or of RFC 6533 where the
// sender's address needs it. Of RFC 3461 it honours NOTIFY, ORCPT and ENVID; RET
// makes no difference, since the original's body is never seen here and its
// header alone is returned. Only failures are reported, never delays, successes
// or relaying. A notice is plain text to one recipient and names no other.
//
// The policy decides who is to get what. This package knows when nothing may be sent
// all the same: to the null sender, about automatic mail (RFC 3834), to a sender who
// is not authenticated, beyond the rates. Those rules but the rates are in rules.go, and
// pure. Whether a DSN may be sent is asked with AllowDSN before the policy has decided,
// because a recipient's action depends on it; a notice that may not be sent is left out.
//
// Mail is handed to an MTA by SMTP, within HandOverTimeout, before the caller answers the
// client that sent the original. After a failure the caller answers 451. What was handed
// over is remembered in a Ledger for a day, also across restarts, so that nothing is sent
// twice when the client tries again.
//
// An AuthKey is in none of what is written: its fields are dropped from the
// quoted header.
package notify
