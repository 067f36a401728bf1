// Package notify tells people about mail that a policy did not deliver: senders
// by a delivery status notification (DSN), recipients by a notice.
//
// A DSN is a multipart/report of RFC 3464 and RFC 6522, or of RFC 6533 where the
// sender's address needs it. Of RFC 3461 it honours NOTIFY, ORCPT and ENVID; RET
// makes no difference, since the original's body is never seen here and its
// header alone is returned. Only failures are reported, never delays, successes
// or relaying. A notice is plain text to one recipient and names no other.
//
// Who is to get what is the policy's to decide. This package knows when nothing
// may be sent all the same: to the null sender, about automatic mail (RFC 3834),
// to a sender who is not authenticated, beyond the rates. Those rules are in
// rules.go, and pure. A DSN is withheld before the policy is done, with AllowDSN,
// because its recipient's action depends on it; a notice simply is not sent.
//
// Mail is handed to an MTA by SMTP, within HandOverTimeout, before the caller
// answers for the original; every failure is the caller's 451. What was handed
// over is remembered in a Ledger for a day, also across restarts, so that the
// client's retry repeats nothing.
//
// An AuthKey is in none of what is written: its fields are dropped from the
// quoted header.
package notify
