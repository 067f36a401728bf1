// Package milter is the side that the MTA talks to: one session per MTA connection takes
// each message through the same steps. It collects envelope and header, asks the verifier
// at the end of the message, has the policy decide, hands over DSNs to senders and notices
// to recipients, changes the message, answers the MTA and logs one line.
//
// Put a [verifier.Verifier] and a [policy.Policy] into an [Engine], make a [Server] of it
// with [New], and call [Server.Serve] for each socket that [Listen] opens. [Examine] takes
// a message through the same steps without an MTA.
//
// What holds for every message: the AuthKey is removed from inbound mail, whatever the
// result; after a fault of the milter's own the client is answered 451, so that mail is
// neither lost nor passed unchecked; nothing of one message is left when the next begins.
//
// To the MTA the body begins at the first line that is no header field. A field after that
// line is delivered unchanged and never counts as a key; the same holds for the headers of
// an attached message.
//
// The milter protocol is spoken through github.com/d--j/go-milter (library.go). Under the
// library is a connection of our own (conn.go) that refuses frames which the library
// would panic on, bounds memory and time, and keeps the number of packets small.
package milter
