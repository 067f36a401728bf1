// Package milter is the side that the MTA talks to: one session per MTA connection takes
// each message through the same steps. It collects envelope and header, asks the verifier
// at the end of the message, has the policy decide, tells senders and recipients what
// they have to hear (DSNs, notices), changes the message, answers the MTA and logs one
// line.
//
// Put a [verifier.Verifier] and a [policy.Policy] into an [Engine], make a [Server] of it
// with [New], and call [Server.Serve] for each socket that [Listen] opens. [Examine] takes
// a message through the same steps without an MTA.
//
// What it promises to every message: the AuthKey is removed from inbound mail
// whatever the verdict; a fault of ours answers 451 and never loses or passes
// mail; nothing of one message is left when the next begins.
//
// A field after the first line that is no header field is body to the MTA. It is
// delivered unchanged and never counts as a key; the same holds for the headers
// of an attached message.
//
// The milter protocol is spoken through github.com/d--j/go-milter (library.go). Under the
// library lies a connection of our own (conn.go) that refuses frames which the library
// would panic on, bounds memory and time, and keeps the number of packets small.
package milter
